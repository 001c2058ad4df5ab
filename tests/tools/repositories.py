"""Repositories for tests: cheap keys, honestly written to the key file; a store in memory, with faults."""

from __future__ import annotations

import contextlib
import io
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from coeval.cli.main import main
from coeval.repository.crypto import Bytes
from coeval.repository.errors import ObjectMissing, RepositoryDamaged
from coeval.repository.file_store import FileStore
from coeval.repository.keys import ScryptCost
from coeval.repository.repository import Repository
from coeval.repository.store import Kind, Store

CHEAP = ScryptCost(n=2, r=1, p=1)
PASSWORD = "a password of tests"


class MemoryStore:
    """A store in memory. `before(verb, kind, name)` runs ahead of each call and may raise."""

    def __init__(self) -> None:
        self.objects: dict[tuple[Kind, str], bytes] = {}
        self.before: Callable[[str, Kind, str], None] = lambda verb, kind, name: None
        self._guard = threading.Lock()

    def save(self, kind: Kind, name: str, parts: Sequence[Bytes]) -> None:
        self.before("save", kind, name)
        with self._guard:
            self.objects[kind, name] = b"".join(parts)

    def create(self, kind: Kind, name: str, parts: Sequence[Bytes]) -> bool:
        self.before("create", kind, name)
        with self._guard:
            if (kind, name) in self.objects:
                return False
            self.objects[kind, name] = b"".join(parts)
            return True

    def load(self, kind: Kind, name: str) -> bytes:
        self.before("load", kind, name)
        try:
            return self.objects[kind, name]
        except KeyError:
            raise ObjectMissing(f"{kind.value}/{name} is missing") from None

    def load_range(self, kind: Kind, name: str, offset: int, length: int) -> bytes:
        data = self.load(kind, name)[offset : offset + length]
        if len(data) != length:
            raise RepositoryDamaged(f"{kind.value}/{name} is truncated")
        return data

    def entries(self, kind: Kind) -> Iterator[tuple[str, int]]:
        self.before("entries", kind, "")
        with self._guard:
            return iter([(name, len(data)) for (found, name), data in self.objects.items() if found is kind])

    def remove(self, kind: Kind, name: str) -> None:
        self.before("remove", kind, name)
        with self._guard:
            self.objects.pop((kind, name), None)

    def sweep(self) -> int:
        return 0


def new_repository(store: Store) -> Repository:
    """Make a repository that opens fast."""
    return Repository.init(store, PASSWORD, CHEAP)[0]


class Cli:
    """The command line on one repository, run in this process."""

    def __init__(self, folder: Path, url: str | None = None) -> None:
        """With a URL nothing is made there: `repo init` is the caller's."""
        self.repository = folder / "repository"
        self.url = url or f"file://{self.repository}"
        self.password_file = folder / "password"
        self.password_file.write_text(f"{PASSWORD}\n")
        if url is None:
            new_repository(FileStore(str(self.repository)))

    @property
    def access(self) -> list[str]:
        return ["--repository", self.url, "--password-file", str(self.password_file)]

    def run(self, *command: str, code: int = 0) -> dict[str, Any]:
        """Run a command with the repository's options; expect an exit code; give the JSON document."""
        words = list(command)
        at = next((n for n, word in enumerate(words) if word.startswith("-")), len(words))
        return run_coeval(*words[:at], *self.access, *words[at:], code=code)

    def copy(self, source: Path, name: str, *options: str) -> str:
        """Copy a volume; give the snapshot."""
        return str(self.run("volume", "copy", "--name", name, "--source", str(source), *options)["snapshot"])


def run_coeval(*arguments: str, code: int | None = 0) -> dict[str, Any]:
    """Run the command line in this process; expect an exit code (None: any); give the JSON document."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(list(arguments))
        except SystemExit as exit_:
            status = exit_.code or 0
    assert code is None or status == code, f"exit {status}: {out.getvalue()}{err.getvalue()}"
    document: dict[str, Any] = json.loads(out.getvalue())
    return document
