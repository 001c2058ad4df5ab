"""The command line, killed at a store call: run as a program, it forks a warmed-up process for every command.

It reads a JSON line `{"words": […], "at": number}` and answers with `{"status": …, "calls": [verb, …]}`. The
child kills itself with SIGKILL just before the store call of that number (from 0); -1 lets it end.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
from functools import partialmethod
from pathlib import Path
from types import TracebackType
from typing import IO

import pytest
from coeval.cli import session
from coeval.cli.main import main
from coeval.repository import lock, repository, writer
from coeval.repository.store import Store, open_store

from tests.tools.faults import FaultyStore
from tests.tools.repositories import CHEAP


class KilledStore(FaultyStore):
    """Tells every call to a pipe; at the call numbered `at` the process is killed."""

    def __init__(self, inner: Store, at: int, log: IO[bytes]) -> None:
        super().__init__(inner)
        self._kill_at, self._log = at, log

    def about_to(self, number: int, verb: str) -> None:
        if number == self._kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        self._log.write(verb.encode() + b"\n")


def serve() -> None:
    """Answer requests until there are no more."""
    # Only what costs time is changed: a rival's lock is seen at once, and nobody pulls the plug.
    patch = pytest.MonkeyPatch()
    patch.setattr(lock, "SETTLE_SECONDS", 0.0)
    patch.setattr(os, "fsync", lambda file: None)
    patch.setattr(repository, "ScryptCost", lambda: CHEAP)
    # Every chunk is a pack, and listed at once, as those of a long copy are in time.
    patch.setattr(writer, "INDEX_SECONDS", 0.0)
    one = partialmethod(writer.BlobWriter.__init__, pack_size=1)
    patch.setattr(writer.BlobWriter, "__init__", one)
    # What the commands import when they need it, imported once.
    for name in ("commit", "ranges", "restore", "retime", "sources", "targets", "verify", "volumes"):
        importlib.import_module(f"coeval.mover.{name}")
    for line in sys.stdin:
        request = json.loads(line)
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reading)
            _run(request["words"], request["at"], writing)
        os.close(writing)
        with os.fdopen(reading) as pipe:
            calls = pipe.read().split()
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        sys.stdout.write(json.dumps({"status": status, "calls": calls}) + "\n")
        sys.stdout.flush()


def _run(words: list[str], at: int, log: int) -> None:
    """Be the command: never returns."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1):
        os.dup2(nowhere, number)
    pipe = os.fdopen(log, "wb", buffering=0)
    pytest.MonkeyPatch().setattr(session, "open_store", lambda url: KilledStore(open_store(url), at, pipe))
    try:
        main(words)
    except SystemExit as exit_:
        os._exit(int(exit_.code or 0))
    finally:
        os._exit(99)


class Killer:
    """Runs commands in children of one warmed-up program. Use with `with`."""

    def __enter__(self) -> Killer:
        command = [sys.executable, "-m", "tests.tools.killed"]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate(timeout=60)

    def run(self, words: list[str], at: int = -1) -> tuple[int, list[str]]:
        """Run a command; give its status (-9: killed) and the verbs of its store calls."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps({"words": words, "at": at}) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        return answer["status"], answer["calls"]


if __name__ == "__main__":
    serve()
