"""What every data command does around its work: open, lock, show progress, report, end with a code."""

from __future__ import annotations

import json
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import typer

from coeval.cli.retries import told
from coeval.mover.errors import Interrupted
from coeval.mover.memory import keep_freed_memory
from coeval.mover.progress import Progress, ProgressStyle, shown
from coeval.repository.below import repositories_below
from coeval.repository.errors import (
    DataPlaneError,
    InvalidArgument,
    RepositoryDamaged,
    RepositoryNotFound,
    StoreUnfit,
    WrongPassword,
)
from coeval.repository.lock import Lock
from coeval.repository.probe import prove
from coeval.repository.repository import Repository
from coeval.repository.store import Store, open_store
from coeval.repository.upload_limit import LimitedStore

MIB = 1 << 20
RESULT_LIMIT = 4096
"""Bytes the kubelet keeps of a termination message."""

TRIED = 3
"""Repositories that must refuse the password before it counts as wrong: one of them may not be ours."""

Result = dict[str, Any]


@dataclass(frozen=True)
class Access:
    """Where the repository is, the file with its password, and how fast it may be written (MiB/s)."""

    url: str
    password_file: Path
    limit_upload: float | None = None

    def store(self) -> Store:
        """Open the store. Raises InvalidArgument."""
        store = open_store(self.url)
        if self.limit_upload is None:
            return store
        if not self.limit_upload > 0:
            raise InvalidArgument(f"--limit-upload {self.limit_upload}: give MiB per second, above 0")
        return LimitedStore(store, self.limit_upload * MIB)

    def password(self) -> str:
        """Read the password, without the white space around it, as restic does. Raises InvalidArgument."""
        try:
            password = self.password_file.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
            raise InvalidArgument(f"--password-file {self.password_file}: {reason}") from None
        if not password:
            raise InvalidArgument(f"--password-file {self.password_file} is empty")
        return password

    def prove(self) -> None:
        """Prove that the store does what a repository needs. Raises StoreUnfit and what the store raises."""
        with self._named():
            prove(self.store())

    def init(self) -> tuple[Repository, bool]:
        """Open the repository; make it if there is none: the flag tells. Raises as `prove` and `open` do."""
        with self._named():
            return Repository.init(self.store(), self.password())

    def open(self) -> Repository:
        """Open the repository. Raises RepositoryNotFound, WrongPassword, RepositoryDamaged."""
        with self._named():
            return Repository.open(self.store(), self.password())

    def open_one_below(self) -> str | None:
        """Open one of the VMs' repositories that are there already, if any are; give its path.

        One whose own objects are damaged says nothing about the password. Raises WrongPassword.
        """
        password, refused = self.password(), []
        for path, store in repositories_below(self.url):
            try:
                Repository.open(store, password)
            except WrongPassword:
                refused.append(path)
            except (RepositoryDamaged, RepositoryNotFound):
                continue
            else:
                return path
            if len(refused) == TRIED:
                break
        if refused:
            raise WrongPassword(
                f"the password opens none of the repositories that are there already ({', '.join(refused)}); "
                "put back the one that they were made with, or name another place for new ones"
            )
        return None

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Add the place to a failure that does not know it."""
        try:
            yield
        except (RepositoryNotFound, StoreUnfit) as error:
            raise type(error)(f"--repository {self.url}: {error}") from None


@dataclass(frozen=True)
class Output:
    """Where results and progress go."""

    result: Path | None = None
    progress: ProgressStyle | None = None

    @property
    def style(self) -> ProgressStyle:
        """A bar for people, nothing where nobody watches, unless told."""
        return self.progress or (ProgressStyle.BAR if sys.stderr.isatty() else ProgressStyle.NONE)


def perform(output: Output, action: Callable[[Progress], Result]) -> None:
    """Run a command's work, report what came of it and leave with exit code 0, 1, 2 or 3."""
    code = 0
    progress = Progress()
    try:
        with _signals(), told(progress, output.style):
            doc = action(progress)
    except DataPlaneError as error:
        code, doc = error.exit_code, failure(error.reason, str(error))
    except KeyboardInterrupt:
        code, doc = 1, failure(Interrupted.reason, "interrupted from the keyboard; nothing was committed")
    except Exception as error:
        traceback.print_exc()
        code, doc = 1, failure("Internal", f"{type(error).__name__}: {error}")
    if progress.retries:
        doc["retries"] = progress.retries
    if fallback := doc.get("fallback"):
        sys.stderr.write(f"coeval: everything was read, {fallback['reason']}: {fallback['message']}\n")
    emit(doc, output.result)
    if code:
        raise typer.Exit(code)


def with_repository(
    access: Access,
    output: Output,
    label: str,
    work: Callable[[Repository, Lock, Progress], Result],
    *,
    init: bool = False,
    lock_needed: bool = True,
) -> None:
    """Run work under the repository's lock, showing progress."""

    def locked(repository: Repository, progress: Progress) -> Result:
        with repository.lock(needed=lock_needed) as lock:
            return work(repository, lock, progress)

    with_unlocked(access, output, label, locked, init=init)


def with_unlocked(
    access: Access,
    output: Output,
    label: str,
    work: Callable[[Repository, Progress], Result],
    *,
    init: bool = False,
) -> None:
    """Run work that takes the repository's lock itself, showing progress."""

    def action(progress: Progress) -> Result:
        keep_freed_memory()
        repository = access.init()[0] if init else access.open()
        with shown(progress, output.style, label):
            return work(repository, progress)

    perform(output, action)


def failure(reason: str, message: str) -> Result:
    """Give the document of a failure."""
    return {"error": {"reason": reason, "message": message}}


def emit(doc: Result, result: Path | None) -> None:
    """Write the one JSON document to stdout, and to the result file, where a long message is shortened.

    A failure is told on stderr, too, as one line for people.
    """
    if "error" in doc:
        message = " ".join(doc["error"]["message"].split())
        sys.stderr.write(f"coeval: {doc['error']['reason']}: {message}\n")
    sys.stdout.write(json.dumps(doc) + "\n")
    sys.stdout.flush()
    if result is None:
        return
    text = json.dumps(doc)
    if len(text.encode()) > RESULT_LIMIT and "error" in doc:
        message = doc["error"]["message"]
        short = message.encode()[: RESULT_LIMIT // 2].decode(errors="ignore")
        text = json.dumps(doc | failure(doc["error"]["reason"], f"{short} … (the rest is in the log)"))
    try:
        result.write_text(text + "\n")
    except OSError as error:
        sys.stderr.write(f"coeval: --result {result}: {error.strerror}\n")
        raise typer.Exit(1) from error


@contextmanager
def _signals() -> Iterator[None]:
    """Turn SIGTERM into an exception once, so that locks and temporary files are removed on the way out."""

    def interrupt(number: int, _: FrameType | None) -> NoReturn:
        signal.signal(number, signal.SIG_IGN)
        raise Interrupted("asked to end by SIGTERM; nothing was committed")

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
