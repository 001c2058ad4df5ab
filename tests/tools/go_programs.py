"""Programs that tests run against, built once from their pinned Go modules and kept by version."""

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
def go_program(name: str, module: str, package: str) -> Path:
    """Give a program; builds it (minutes) if it is not cached. Safe for several runs at once.

    `<name>-build/` beside this file pins `module`; `package` is the program's folder within it.
    """
    wrapper = Path(__file__).with_name(f"{name}-build")
    match = re.search(rf"{re.escape(module)} v([0-9.]+)", (wrapper / "go.mod").read_text())
    assert match, f"{wrapper}/go.mod pins {module}"
    place = cache() / name / match[1]
    binary = place / name
    place.mkdir(parents=True, exist_ok=True)
    with (place / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not binary.exists():
            _build(wrapper, f"{module}/{package}", binary)
    return binary


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
