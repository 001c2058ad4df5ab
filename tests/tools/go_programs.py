"""Programs of other people, built once from their Go modules, kept by version, used as judges and rivals.

Each has a wrapper module in `<name>-build/` beside this file, whose go.mod and go.sum pin it.
"""

from __future__ import annotations

import fcntl
import functools
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.cluster.paths import cache


@functools.cache
def go_program(name: str, package: str) -> Path:
    """Give a program; builds it (minutes) if it is not cached. Safe for several runs at once.

    `package` is its main package, in the first module that the wrapper requires. Raises RuntimeError with
    the compiler's words.
    """
    binary = cache() / name / pinned_version(name) / name
    binary.parent.mkdir(parents=True, exist_ok=True)
    with (binary.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not binary.exists():
            _build(_wrapper(name), package, binary)
    return binary


def pinned_version(name: str) -> str:
    """Give the version that a program's wrapper module requires, without the `v`."""
    match = re.search(r"^require \S+ v(\S+)", (_wrapper(name) / "go.mod").read_text(), re.MULTILINE)
    assert match, f"{_wrapper(name)}/go.mod pins {name}"
    return match[1]


def _wrapper(name: str) -> Path:
    return Path(__file__).with_name(f"{name}-build")


def _build(wrapper: Path, package: str, binary: Path) -> None:
    environment = os.environ | {"GOFLAGS": "-mod=mod", "GOTOOLCHAIN": "local", "CGO_ENABLED": "0"}
    with tempfile.TemporaryDirectory(dir=binary.parent) as folder:
        # Go may touch go.sum: it works on a copy, never on the tree.
        for name in ("go.mod", "go.sum"):
            shutil.copy(wrapper / name, folder)
        command = ["nice", "go", "build", "-trimpath", "-ldflags=-s -w", "-o", binary.name, package]
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{binary.name} does not build:\n{done.stderr}")
        (Path(folder) / binary.name).rename(binary)
