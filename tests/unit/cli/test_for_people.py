"""What the command line says to a person: one plain line about a failure, its version."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from coeval import __version__
from coeval.cli.main import main
from coeval.cli.session import emit, failure

from tests.tools.repositories import Cli


def run(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int | str | None, str, str]:
    capsys.readouterr()
    with pytest.raises(SystemExit) as left:
        main(words)
    out, err = capsys.readouterr()
    return left.value.code, out, err


def test_a_failure_is_one_line_for_people_and_a_document_for_programs(
    cli: Cli, capsys: pytest.CaptureFixture[str]
) -> None:
    for words, code in (
        (["verify", *cli.access, "--snapshot", "beef"], 1),
        (["verify", *cli.access, "--snapshot", "beef", "--sample", "2"], 2),
        (["verify", *cli.access], 2),
        (["nonsense"], 2),
    ):
        left, out, err = run(words, capsys)
        error = json.loads(out)["error"]
        assert (left, err) == (code, f"coeval: {error['reason']}: {error['message']}\n")


def test_a_message_of_several_lines_stays_one(capsys: pytest.CaptureFixture[str]) -> None:
    emit(failure("Internal", "first\n  second\n"), None)
    out, err = capsys.readouterr()
    assert err == "coeval: Internal: first second\n"
    assert json.loads(out)["error"]["message"] == "first\n  second\n"


def test_success_says_nothing_to_stderr_where_nobody_watches(
    cli: Cli, capsys: pytest.CaptureFixture[str]
) -> None:
    left, out, err = run(["repo", "probe", *cli.access], capsys)
    assert not left and json.loads(out)["writable"] and not err


def test_a_copy_that_could_not_start_from_its_parent_says_so(
    cli: Cli, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = tmp_path / "image"
    image.write_bytes(bytes(5000))
    words = ["volume", "copy", *cli.access, "--name", "a", "--source", str(image), "--parent", "beef"]
    left, out, err = run(words, capsys)
    assert not left and json.loads(out)["fallback"]["reason"] == "BaseMissing"
    assert "everything was read, BaseMissing: --parent beef" in err


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"], capsys) == (0, f"coeval {__version__}\n", "")
