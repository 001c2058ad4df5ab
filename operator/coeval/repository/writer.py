"""Storing blobs: known ones are passed over, new ones go into packs that background threads write.

Order of durability: packs, then the index files that list them. The caller's snapshot object comes last.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from types import TracebackType

from coeval.repository.crypto import Bytes, hash_id
from coeval.repository.errors import DataPlaneError
from coeval.repository.index import FILE_BLOBS, PackEntry, encode_index
from coeval.repository.lock import Lock
from coeval.repository.pack import TARGET_SIZE, BlobType, Pack, SealedBlob, list_blobs, seal_blob
from coeval.repository.repository import Repository
from coeval.repository.store import Kind

UPLOADS = 2
"""Packs being written at a time. One more may be full; then whoever has another blob to store waits."""
INDEX_SECONDS = 60.0
"""An index file is written at least this often: a command that is run again after a crash finds what the
first one stored, instead of storing it once more. An hour's copy leaves sixty small files."""


class BlobWriter:
    """Stores blobs from any number of threads. Use with `with`, and `flush` before the block ends."""

    def __init__(self, repository: Repository, lock: Lock, *, pack_size: int = TARGET_SIZE) -> None:
        self._repository = repository
        self._lock = lock
        self._index = repository.index
        self._pack_size = pack_size
        self._guard = threading.Lock()
        self._open = {kind: Pack(kind) for kind in BlobType}
        self._pending: set[tuple[BlobType, bytes]] = set()
        self._unlisted: list[PackEntry] = []
        self._listed_at = time.monotonic()
        self._uploads = ThreadPoolExecutor(UPLOADS, thread_name_prefix="pack")
        self._room = threading.Condition(self._guard)
        self._waiting = 0
        self._failure: BaseException | None = None
        self.bytes_added = 0
        """Bytes of new blobs as stored, without headers and index."""

    def __enter__(self) -> BlobWriter:
        self._repository.store.sweep()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, _: TracebackType | None
    ) -> None:
        self._uploads.shutdown(wait=True, cancel_futures=True)
        if value is not None:
            with suppress(DataPlaneError):  # it must not hide what went wrong; the packs are then orphans
                self._write_index()

    def store(self, kind: BlobType, plaintext: Bytes, blob_id: bytes | None = None) -> bytes:
        """Store a blob unless it is known; give its id. Blocks while too many packs wait to be written."""
        blob_id = blob_id or hash_id(plaintext)
        if self.claim(kind, blob_id):
            with self._room:  # before the blob is sealed: what waits must not take memory, too
                self._room.wait_for(lambda: self._waiting <= UPLOADS or self._failure is not None)
                self._raise_failure()
            self._put(kind, seal_blob(self._repository.key, blob_id, plaintext))
        return blob_id

    def claim(self, kind: BlobType, blob_id: bytes) -> bool:
        """Tell whether a blob is new, and if so keep other threads from storing it too."""
        with self._guard:
            self._raise_failure()
            if (kind, blob_id) in self._pending or self._index.has(kind, blob_id):
                return False
            self._pending.add((kind, blob_id))
            return True

    def flush(self) -> None:
        """Write the open packs and all that the index lacks. Raises what a background thread met."""
        with self._guard:
            packs = [pack for pack in self._open.values() if pack.blobs]
            self._open = {kind: Pack(kind) for kind in BlobType}
        for pack in packs:
            self._send(pack)
        self._uploads.shutdown(wait=True)
        with self._guard:
            self._raise_failure()
        self._write_index()
        self._lock.check()
        self._uploads = ThreadPoolExecutor(UPLOADS, thread_name_prefix="pack")

    def _put(self, kind: BlobType, blob: SealedBlob) -> None:
        with self._guard:
            self.bytes_added += len(blob.data)
            pack = self._open[kind]
            pack.add(blob)
            if pack.size < self._pack_size:
                return
            self._open[kind] = Pack(kind)
        self._send(pack)

    def _send(self, pack: Pack) -> None:
        with self._guard:
            self._waiting += 1
        self._uploads.submit(self._upload, pack)

    def _upload(self, pack: Pack) -> None:
        try:
            if self._failure is None:
                self._save(pack)
        except BaseException as error:  # handed to the thread that stores next
            self._failure = error
        finally:
            with self._room:
                self._waiting -= 1
                self._room.notify_all()

    def _save(self, pack: Pack) -> None:
        self._lock.check()
        pack_id, parts = pack.finish(self._repository.key)
        self._repository.store.save(Kind.PACK, pack_id.hex(), parts)
        entry = PackEntry(pack_id, pack.type, list_blobs(pack))
        with self._guard:
            self._index.add(entry)
            self._pending -= {(pack.type, blob.id) for blob in pack.blobs}
            self._unlisted.append(entry)
            full = sum(len(unlisted.blobs) for unlisted in self._unlisted) >= FILE_BLOBS
            due = time.monotonic() - self._listed_at >= INDEX_SECONDS
        if full or due:
            self._write_index()

    def _write_index(self) -> None:
        """List the packs that no index file lists yet. Without our lock they may be gone: then it refuses."""
        with self._guard:
            entries, self._unlisted = self._unlisted, []
            self._listed_at = time.monotonic()
        if not entries:
            return
        try:
            self._lock.check()
            self._repository.save_file(Kind.INDEX, encode_index(entries))
        except BaseException:
            with self._guard:
                self._unlisted += entries
            raise

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure
