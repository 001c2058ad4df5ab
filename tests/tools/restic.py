"""The real restic, built once from its Go module and kept by version: the judge of what we write."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from tests.tools.go_programs import go_program

CURRENT, OLD = "restic", "restic-old"


def restic_binary(build: str = CURRENT) -> Path:
    """Give the restic program: the current one, or the first that has format 2."""
    return go_program(build, "github.com/restic/restic/cmd/restic")


class Restic:
    """restic on one repository. Without a cache of its own, so that it sees what is really there."""

    def __init__(self, repository: Path | str, password: str, build: str = CURRENT) -> None:
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
        """Start a command and give its process, which ends with us, with a pipe to its stdin."""
        command = [
            "setpriv",
            "--pdeathsig",
            "KILL",
            str(restic_binary(self._build)),
            "--no-cache",
            *arguments,
        ]
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
