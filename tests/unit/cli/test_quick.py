"""What is run without typer's parser means just what it would have meant with it."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import typer
from coeval.cli.main import app
from coeval.cli.quick import plain_call

ACCESS = ["--repository", "file:///r", "--password-file", "p"]
COPY = ["volume", "copy", *ACCESS, "--name", "root", "--source=/dev/x"]


def by_typer(words: list[str]) -> dict[str, Any]:
    command: Any = typer.main.get_command(app)
    context = command.make_context("coeval", list(words), resilient_parsing=True)
    rest = list(words)
    while hasattr(command, "resolve_command"):
        name, command, rest = command.resolve_command(context, rest)
    found: dict[str, Any] = command.make_context(name, list(rest)).params
    return found


@pytest.mark.parametrize(
    "words",
    [
        COPY,
        [*COPY, "--tag", "a=b", "--tag=c=d", "--interim", "--progress", "json", "--limit-upload", "2.5"],
        [*COPY, "--parent", "abc", "--changed", "ranges", "--changed-from", "csi", "--record-extents"],
        ["volume", "restore", *ACCESS, "--snapshot", "latest", "--name", "a", "--target", "/t", "--sparse"],
        ["commit", *ACCESS, "--snapshot", "a", "--snapshot", "b", "--manifest", "x.yaml", "--forget-parts"],
        ["verify", *ACCESS, "--snapshot", "a", "--sample", "1%"],
        ["repo", "init", *ACCESS, "--if-absent", "--result", "/r"],
        ["repo", "forget", *ACCESS, "--tag", "a=b", "--parts-only"],
    ],
)
def test_the_same_values_come_out(words: list[str]) -> None:
    call = plain_call(app, words)
    assert isinstance(call, partial)
    mine = (call.func.__kwdefaults__ or {}) | call.keywords
    theirs = by_typer(words)
    assert mine.keys() == theirs.keys()
    for name, value in mine.items():
        assert value == theirs[name] or (not value and not theirs[name]), name
        assert value is None or type(value) is type(theirs[name]), name


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["volume"],
        ["nonsense", *ACCESS],
        ["--help"],
        [*COPY, "--help"],
        COPY[:-1],
        [*COPY, "--tag"],
        [*COPY, "--tag", "--interim"],
        [*COPY, "--interim=yes"],
        [*COPY, "--no-such-option", "1"],
        [*COPY, "argument"],
        [*COPY, "--limit-upload", "fast"],
        [*COPY, "--progress", "loud"],
    ],
)
def test_what_is_not_plain_is_left_to_typer(words: list[str]) -> None:
    assert plain_call(app, words) is None


def test_a_backup_pays_for_no_parser(tmp_path: Path) -> None:
    program = (
        "import sys\nfrom coeval.cli.main import main\ntry: main()\nfinally: print('pydantic' in sys.modules)"
    )
    words = ["repo", "probe", "--repository", f"file://{tmp_path}/r", "--password-file", "/dev/null"]
    done = subprocess.run(
        [sys.executable, "-c", program, *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and done.stdout.splitlines()[-1] == "False"
