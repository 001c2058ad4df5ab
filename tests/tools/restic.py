"""The real restic, built once from its Go module and kept by version: the judge of what we write."""

from __future__ import annotations

import fcntl
import functools
import json
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

CURRENT, OLD = "restic-build", "restic-build-old"
_PACKAGE = "github.com/restic/restic/cmd/restic"


@functools.cache
def restic_binary(build: str = CURRENT) -> Path:
    """Give the restic program; builds it (minutes) if it is not cached. Safe for several runs at once."""
    module = Path(__file__).with_name(build)
    match = re.search(r"github\.com/restic/restic v([0-9.]+)", (module / "go.mod").read_text())
    assert match, f"tests/tools/{build}/go.mod pins restic"
    cache = Path(os.environ.get("COEVAL_CACHE", Path.home() / ".cache/coeval")) / "restic" / match[1]
    binary = cache / "restic"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not binary.exists():
            _build(module, binary)
    return binary


def _build(module: Path, binary: Path) -> None:
    environment = os.environ | {"GOFLAGS": "-mod=mod", "GOTOOLCHAIN": "local", "CGO_ENABLED": "0"}
    with tempfile.TemporaryDirectory(dir=binary.parent) as folder:
        # Go may touch go.sum: it works on a copy, never on the tree.
        for name in ("go.mod", "go.sum"):
            shutil.copy(module / name, folder)
        command = ["nice", "go", "build", "-trimpath", "-ldflags=-s -w", "-o", "restic", _PACKAGE]
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"restic does not build:\n{done.stderr}")
        (Path(folder) / "restic").rename(binary)


class Restic:
    """restic on one repository. Without a cache of its own, so that it sees what is really there."""

    def __init__(self, repository: Path, password: str, build: str = CURRENT) -> None:
        self.repository = repository
        self._build = build
        self._environment = os.environ | {"RESTIC_PASSWORD": password, "RESTIC_REPOSITORY": str(repository)}

    def run(self, *arguments: str, cwd: Path | None = None) -> bytes:
        """Run a command that must succeed; give its stdout."""
        done = self.attempt(*arguments, cwd=cwd)
        assert done.returncode == 0, f"restic {arguments}: {done.stderr.decode()}{done.stdout.decode()}"
        return done.stdout

    def attempt(self, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[bytes]:
        """Run a command, whatever comes of it."""
        command = [str(restic_binary(self._build)), "--no-cache", *arguments]
        return subprocess.run(command, env=self._environment, cwd=cwd, capture_output=True, check=False)

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start a command and give its process, with a pipe to its stdin."""
        command = [str(restic_binary(self._build)), "--no-cache", *arguments]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, env=self._environment, stdin=pipe, stdout=pipe, stderr=pipe)

    def snapshots(self) -> list[dict[str, Any]]:
        """List the snapshots."""
        listed: list[dict[str, Any]] = json.loads(self.run("snapshots", "--json"))
        return listed

    def check(self) -> None:
        """Read everything; no error and no complaint is accepted."""
        output = self.run("check", "--read-data").decode()
        assert "no errors were found" in output, output
