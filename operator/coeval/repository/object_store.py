"""A store in a bucket (S3, GCS, Azure) over obstore, in restic's default layout.

What is relied upon, and `prove` looks for at init: what was written is read, and listed, at once, and a
conditional write is atomic. Amazon, Google and Azure promise both. What a listing that lags behind would do:
the blobs of an index file not seen yet are stored twice, or a reader ends with "in no index", never with
wrong bytes; a snapshot is read by its full id without a listing, but `latest` is the newest that it
shows; only a lock not seen yet is dangerous, if it is a prune's: SETTLE_SECONDS is the margin, as it is
for restic.

The library's own retries are off. They (0.12.1, tried) leave out a listing cut in its body and a conditional
write that hangs, take the conflict of two writes (409) for an object that exists, and say "exists" where the
answer to our own conditional write was lost. One loop here tries everything again until a deadline.

Packs go up as they lie in memory, in one request: no file, no joined copy, no parts left behind by a crash.
"""

from __future__ import annotations

import logging
import random
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, TypeVar

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError

from coeval.repository.crypto import Bytes
from coeval.repository.errors import (
    BucketNotFound,
    CredentialsRefused,
    DataPlaneError,
    ObjectMissing,
    RepositoryDamaged,
    RepositoryFull,
    RepositoryUnreachable,
)
from coeval.repository.object_errors import Failure, Trouble, read_failure
from coeval.repository.pace import Pace
from coeval.repository.store import CONFIG_NAME, STALE_AFTER_SECONDS, Kind, label

if TYPE_CHECKING:
    from obstore.store import ObjectStore as Bucket

REQUEST_SECONDS = 120
"""A server that is silent for this long is asked again; for large writes see `pace`."""
LONGEST_SECONDS = 3600
"""An answer may take this long as long as it comes."""
CONNECT_SECONDS = 10
PAGE = 1000

_NAME = re.compile(r"[0-9a-f]{64}")
_LARGE = (Kind.PACK, Kind.INDEX)
_LOG = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True)
class Patience:
    """How long a call is tried again. Times in seconds."""

    deadline: float = 300.0
    """After this long no new attempt is begun. A slow one counts as REQUEST_SECONDS: it moved something."""
    first_answer: float = 20.0
    """The same while the server has never answered: then it is more likely a wrong address."""
    shortest: float = 0.2
    longest: float = 15.0

    def wait(self, attempt: int, elapsed: float, *, answered: bool) -> float | None:
        """Give the time to wait after an attempt (counted from 0) before the next; None: give up.

        Doubles each time, less up to a half, so that movers do not come back all at once.
        """
        most = min(self.longest, self.shortest * 2.0 ** min(attempt, 32))
        wait = most * random.uniform(0.5, 1.0)  # noqa: S311  (no secret)
        return wait if elapsed + wait < (self.deadline if answered else self.first_answer) else None


class ObjectStore:
    """Objects in a bucket, below a prefix. `place` names bucket and endpoint in messages."""

    def __init__(self, pace: Pace, place: str, patience: Patience | None = None) -> None:
        self._pace = pace
        self._bucket = pace.bucket
        self._place = place
        self._patience = patience or Patience()
        self._answered = False

    def save(self, kind: Kind, name: str, parts: Sequence[Bytes]) -> None:
        """See Store."""
        what = f"cannot write {label(kind, name)}"

        def put(bucket: Bucket) -> None:
            obstore.put(bucket, _path(kind, name), list(parts), use_multipart=False)

        if kind in _LARGE:
            self._call(what, lambda: self._put_large(what, put))
        else:
            self._call(what, lambda: put(self._bucket))

    def create(self, kind: Kind, name: str, parts: Sequence[Bytes]) -> bool:
        """See Store. Where an answer was lost, what is there now tells whether it was ours."""
        path = _path(kind, name)
        attempts = 0

        def attempt() -> bool:
            nonlocal attempts
            attempts += 1
            try:
                obstore.put(self._bucket, path, list(parts), mode="create", use_multipart=False)
            except AlreadyExistsError as error:
                if read_failure(str(error)).trouble is not Trouble.EXISTS:
                    raise
                return attempts > 1 and self._read(path) == b"".join(parts)
            return True

        return self._call(f"cannot write {label(kind, name)}", attempt)

    def load(self, kind: Kind, name: str) -> bytes:
        """See Store."""
        return self._reading(kind, name, lambda: self._read(_path(kind, name)))

    def load_range(self, kind: Kind, name: str, offset: int, length: int) -> bytes:
        """See Store."""
        path = _path(kind, name)
        data = self._reading(
            kind,
            name,
            lambda: obstore.get_range(self._bucket, path, start=offset, length=length).to_bytes(),
            end=offset + length,
        )
        if len(data) != length:  # the rest of the object is all that a store gives
            raise _truncated(kind, name, offset + length)
        return data

    def entries(self, kind: Kind) -> Iterator[tuple[str, int]]:
        """See Store."""
        if kind is Kind.CONFIG:
            # Not by HEAD, whose answer has no room for what is wrong: no object, or no bucket.
            top = self._call("cannot look for the config", lambda: obstore.list_with_delimiter(self._bucket))
            yield from ((CONFIG_NAME, meta["size"]) for meta in top["objects"] if meta["path"] == CONFIG_NAME)
            return
        for path, size, _ in self._list(kind):
            name = path.rpartition("/")[2]
            if _NAME.fullmatch(name) and path == _path(kind, name):
                yield name, size

    def remove(self, kind: Kind, name: str) -> None:
        """See Store."""
        self._remove(_path(kind, name), f"cannot remove {label(kind, name)}")

    def sweep(self) -> int:
        """See Store. A probe's object is all that can be left: an upload shows nothing before it is whole."""
        before = datetime.now(UTC) - timedelta(seconds=STALE_AFTER_SECONDS)
        old = [path for path, _, written in self._list(Kind.PROBE) if written < before]
        for path in old:
            self._remove(path, f"cannot remove {path}")
        return len(old)

    def folders(self) -> list[str]:
        """See Place."""
        found = self._call("cannot list its folders", lambda: obstore.list_with_delimiter(self._bucket))
        return [prefix.rstrip("/").rpartition("/")[2] for prefix in found["common_prefixes"]]

    def _list(self, kind: Kind) -> list[tuple[str, int, datetime]]:
        """Path, size and time of every object of a kind; the whole listing, or an error."""

        def attempt() -> list[tuple[str, int, datetime]]:
            pages = obstore.list(self._bucket, kind.value, chunk_size=PAGE)
            return [(meta["path"], meta["size"], meta["last_modified"]) for page in pages for meta in page]

        return self._call(f"cannot list {kind.value}/", attempt)

    def _remove(self, path: str, what: str) -> None:
        with suppress(ObjectMissing):
            self._call(what, lambda: obstore.delete(self._bucket, path))

    def _read(self, path: str) -> bytes:
        return obstore.get(self._bucket, path).bytes().to_bytes()

    def _reading(self, kind: Kind, name: str, action: Callable[[], bytes], *, end: int = 0) -> bytes:
        what = label(kind, name)
        try:
            return self._call(f"cannot read {what}", action)
        except ObjectMissing:
            raise ObjectMissing(f"{what} is missing from {self._place}") from None
        except _BeyondEnd:
            raise _truncated(kind, name, end) from None

    def _put_large(self, what: str, put: Callable[[Bucket], None]) -> None:
        """Write with as much time as the large writes before needed; where it is not enough, with more."""
        while True:
            bucket, level = self._pace.writing()
            begun = time.monotonic()
            try:
                put(bucket)
            except BaseError as error:
                slow = read_failure(str(error)).late and self._alive()
                if not slow or not self._pace.too_slow(level):
                    raise
                _LOG.warning("%s: %s in time, but the server answers: it gets more", self._place, what)
            else:
                self._pace.took(time.monotonic() - begun)
                return

    def _alive(self) -> bool:
        """Tell whether something small is answered, whatever the answer."""
        try:
            obstore.head(self._bucket, CONFIG_NAME)
        except (BaseError, FileNotFoundError) as error:
            return read_failure(str(error)).answered
        return True

    def _call(self, what: str, action: Callable[[], T]) -> T:
        elapsed = 0.0
        attempt = 0
        while True:
            begun = time.monotonic()
            try:
                result = action()
            except (BaseError, FileNotFoundError) as error:
                failure = read_failure(str(error))
            else:
                self._answered = True
                return result
            self._answered |= failure.answered
            elapsed += min(time.monotonic() - begun, self._pace.seconds)
            wait = None
            if failure.trouble is Trouble.PASSING:
                wait = self._patience.wait(attempt, elapsed, answered=self._answered)
            attempt += 1
            if wait is None:
                raise self._error(what, failure, attempt)
            again = "%s: %s: %s; attempt %d failed, the next comes in %.1f s"
            _LOG.warning(again, self._place, what, failure.words, attempt, wait)
            time.sleep(wait)
            elapsed += wait

    def _error(self, what: str, failure: Failure, attempts: int) -> DataPlaneError:
        message = f"{self._place}: {what}: {failure.words}"
        if attempts > 1:
            message += f", after {attempts} attempts"
        kind, way_out = _OUTCOMES.get(failure.trouble, _OTHERWISE)
        if failure.trouble is Trouble.REFUSED:
            way_out = _way_in(failure.code)
        return kind(f"{message}; {way_out}" if way_out else message)


class _BeyondEnd(RepositoryDamaged):
    """The range begins after the object's end."""


_OUTCOMES: dict[Trouble, tuple[type[DataPlaneError], str]] = {
    Trouble.MISSING: (ObjectMissing, ""),
    Trouble.BEYOND_END: (_BeyondEnd, ""),
    Trouble.BUCKET: (BucketNotFound, "make the bucket first, or correct its name in --repository"),
    Trouble.REFUSED: (CredentialsRefused, ""),
    Trouble.FULL: (RepositoryFull, "free space or forget and prune old backups"),
    Trouble.CERTIFICATE: (RepositoryUnreachable, "name a file with the CA's certificate in AWS_CA_BUNDLE"),
}
_OTHERWISE = (RepositoryUnreachable, "check endpoint, region and network, then run it again")


def _truncated(kind: Kind, name: str, end: int) -> RepositoryDamaged:
    return RepositoryDamaged(f"{label(kind, name)} is truncated: it ends before byte {end}")


def _way_in(code: str) -> str:
    if code == "RequestTimeTooSkewed":
        return "set this machine's clock"
    if code == "AccessDenied":
        return "allow them to list the bucket and to get, put and delete its objects"
    return (
        "check the credentials in the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, … for s3; "
        "GOOGLE_APPLICATION_CREDENTIALS for gs; AZURE_STORAGE_ACCOUNT_NAME, AZURE_STORAGE_ACCOUNT_KEY, … "
        "for az)"
    )


def _path(kind: Kind, name: str) -> str:
    if kind is Kind.CONFIG:
        return CONFIG_NAME
    if kind is Kind.PACK:
        return f"{kind.value}/{name[:2]}/{name}"
    return f"{kind.value}/{name}"
