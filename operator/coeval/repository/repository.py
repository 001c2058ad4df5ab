"""A repository: everything above single objects. Opening, reading blobs and trees, snapshots, forgetting."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import suppress

from coeval.repository.compression import NotDecodable, pack_file, unpack_file
from coeval.repository.config import Config
from coeval.repository.crypto import Key, Unauthentic, hash_id
from coeval.repository.errors import (
    ObjectMissing,
    RepositoryDamaged,
    RepositoryNotFound,
    SnapshotNotFound,
)
from coeval.repository.index import Index, MalformedIndex, PackEntry, decode_index
from coeval.repository.keys import ScryptCost, find_key, left_key, new_key
from coeval.repository.lock import Lock
from coeval.repository.pack import BlobType, Damaged, Place, open_blob
from coeval.repository.probe import prove
from coeval.repository.snapshot import Snapshot
from coeval.repository.store import CONFIG_NAME, Kind, Store
from coeval.repository.tree import MalformedTree, Node, decode_tree

_FULL_ID = re.compile(r"[0-9a-f]{64}")


class Repository:
    """An open repository. Reading is safe from several threads; writing goes through BlobWriter."""

    def __init__(self, store: Store, key: Key, config: Config) -> None:
        self.store = store
        self.key = key
        self.config = config
        self.lenient = False
        """Set by commands that only read: what a damaged index file lists is missing, the rest comes out."""
        self.passed_over: list[str] = []
        """Damaged index files, once the index was read, if that is lenient."""
        self._index: Index | None = None
        self._index_guard = threading.Lock()

    @classmethod
    def open(cls, store: Store, password: str) -> Repository:
        """Open an existing repository. Raises RepositoryNotFound, WrongPassword, RepositoryDamaged."""
        try:
            return cls(store, *find_key(store, password))
        except RepositoryNotFound:
            for kind in (Kind.SNAPSHOT, Kind.INDEX):
                if next(store.entries(kind), None):
                    raise RepositoryDamaged(
                        f"config is missing, yet there are objects in {kind.value}/; restore it from a copy"
                    ) from None
            raise

    @classmethod
    def init(cls, store: Store, password: str, cost: ScryptCost | None = None) -> tuple[Repository, bool]:
        """Open the repository; make it if there is none: the flag tells. Safe against a second maker.

        The key file comes first; the config, written only if absent, decides. Who loses takes its key back.
        Any other failure leaves the key: the config may be there although the answer was lost, and without
        its key nobody would ever open it. The next maker goes on with the key that it finds.
        """
        with suppress(RepositoryNotFound):
            return cls.open(store, password), False
        prove(store)
        name, key = left_key(store, password) or new_key(store, password, cost or ScryptCost())
        config = Config.new()
        if store.create(Kind.CONFIG, CONFIG_NAME, [key.seal(config.to_json())]):
            return cls(store, key, config), True
        winner = cls.open(store, password)
        if winner.key != key:
            store.remove(Kind.KEY, name)
        return winner, False

    def lock(self, *, needed: bool = True, exclusive: bool = False) -> Lock:
        """Give a lock, to be used with `with`. See Lock."""
        return Lock(self, needed=needed, exclusive=exclusive)

    # Unpacked files: index, snapshots, locks.

    def names(self, kind: Kind) -> Iterator[str]:
        """Names of all objects of a kind."""
        return (name for name, _ in self.store.entries(kind))

    def load_file(self, kind: Kind, name: str) -> bytes:
        """Read, authenticate and decompress a file. Raises ObjectMissing, RepositoryDamaged."""
        sealed = self.store.load(kind, name)
        label = f"{kind.value}/{name}"
        if hash_id(sealed).hex() != name:
            raise RepositoryDamaged(f"{label} is damaged: its content does not fit its name")
        try:
            return unpack_file(self.key.open(sealed))
        except Unauthentic:
            raise RepositoryDamaged(f"{label} is damaged: its authentication fails") from None
        except NotDecodable as error:
            raise RepositoryDamaged(f"{label} is damaged: {error}") from None

    def seal_file(self, plaintext: bytes) -> tuple[str, bytes]:
        """Compress and encrypt a file; give its name and its bytes."""
        sealed = bytes(self.key.seal(pack_file(plaintext)))
        return hash_id(sealed).hex(), sealed

    def save_sealed(self, kind: Kind, name: str, sealed: bytes) -> None:
        """Store what seal_file gave."""
        self.store.save(kind, name, [sealed])

    def save_file(self, kind: Kind, plaintext: bytes) -> str:
        """Compress, encrypt and store a file; give its name."""
        name, sealed = self.seal_file(plaintext)
        self.save_sealed(kind, name, sealed)
        return name

    def remove(self, kind: Kind, name: str) -> None:
        """Remove a file."""
        self.store.remove(kind, name)

    # Blobs.

    @property
    def index(self) -> Index:
        """All blobs of the repository, read at first use: take the lock before. Raises RepositoryDamaged."""
        with self._index_guard:
            if self._index is None:
                self._index = self._read_index(superseded=frozenset())
            return self._index

    def load_index(self, name: str) -> tuple[list[PackEntry], list[str]]:
        """Read an index file: its packs, and the files that it supersedes. Raises RepositoryDamaged."""
        try:
            return decode_index(self.load_file(Kind.INDEX, name))
        except ObjectMissing:
            raise
        except MalformedIndex as error:
            problem = f"index/{name} is malformed: {error}"
        except RepositoryDamaged as error:
            problem = str(error)
        raise RepositoryDamaged(f"{problem}; `restic repair index` makes a new one from the packs")

    def missing(self, kind: BlobType, blob_id: bytes) -> RepositoryDamaged:
        """Give the failure for a blob that no index file lists."""
        passed_over = "".join(f"; {problem}" for problem in self.passed_over)
        return RepositoryDamaged(f"{kind.name.lower()} blob {blob_id.hex()} is in no index{passed_over}")

    def forget_index(self) -> None:
        """Read the index again at its next use: its files were changed."""
        with self._index_guard:
            self._index = None

    def load_blob(self, kind: BlobType, blob_id: bytes) -> bytes:
        """Read a blob and prove that it is the one. Raises RepositoryDamaged, naming blob and pack.

        Where movers stored it twice, a sound copy makes up for a damaged one.
        """
        failure: RepositoryDamaged | None = None
        for place in self.index.find(kind, blob_id):
            try:
                return self._read_place(kind, blob_id, place)
            except RepositoryDamaged as error:
                failure = error
        raise failure or self.missing(kind, blob_id)

    def load_near(self, kind: BlobType, blobs: list[tuple[bytes, Place]]) -> Iterator[bytes]:
        """Read blobs that lie near each other in one pack by one request, and prove that they are those.

        Where one does not come out, all is tried that `load_blob` tries. Raises RepositoryDamaged.
        """
        begin = min(place.offset for _, place in blobs)
        end = max(place.offset + place.length for _, place in blobs)
        near = memoryview(b"")
        with suppress(RepositoryDamaged):
            near = memoryview(self.store.load_range(Kind.PACK, blobs[0][1].pack.hex(), begin, end - begin))
        for blob_id, place in blobs:
            sealed = near[place.offset - begin : place.offset - begin + place.length]
            try:
                yield open_blob(self.key, blob_id, sealed, place.raw_length)
            except Damaged:
                yield self.load_blob(kind, blob_id)

    def check_pack(self, pack: bytes, wanted: list[tuple[BlobType, bytes]]) -> None:
        """Read a whole pack, prove that its file is unchanged and that the wanted blobs come out of it.

        Raises RepositoryDamaged, also where another pack has a sound copy.
        """
        name = pack.hex()
        content = memoryview(self.store.load(Kind.PACK, name))
        if hash_id(content) != pack:
            raise RepositoryDamaged(f"data/{name} is damaged: its content does not fit its name")
        for kind, blob_id in wanted:
            place = next(place for place in self.index.find(kind, blob_id) if place.pack == pack)
            try:
                sealed = content[place.offset : place.offset + place.length]
                open_blob(self.key, blob_id, sealed, place.raw_length)
            except Damaged as error:
                raise RepositoryDamaged(
                    f"data/{name} is damaged: {kind.name.lower()} blob {blob_id.hex()}: {error}"
                ) from None

    def load_tree(self, tree_id: bytes) -> list[Node]:
        """Read a folder. Raises RepositoryDamaged."""
        try:
            return decode_tree(self.load_blob(BlobType.TREE, tree_id))
        except MalformedTree as error:
            raise RepositoryDamaged(f"tree {tree_id.hex()} is malformed: {error}") from error

    # Snapshots.

    def snapshots(self, damaged: list[str] | None = None) -> list[Snapshot]:
        """Read all snapshots, oldest first. One that is forgotten meanwhile is left out.

        Raises RepositoryDamaged; where a list is given, damaged ones are passed over, and named there.
        """
        found = []
        for name in self.names(Kind.SNAPSHOT):
            try:
                found.append(self._load_snapshot(name))
            except ObjectMissing:
                continue
            except RepositoryDamaged as error:
                if damaged is None:
                    raise
                damaged.append(str(error))
        return sorted(found, key=lambda snapshot: (snapshot.time, snapshot.id))

    def snapshot(self, prefix: str) -> Snapshot:
        """Read the snapshot whose id starts with `prefix`. Raises SnapshotNotFound unless it is one.

        A full id is not looked up in a listing, which might not show yet what was just written.
        """
        names = [prefix]
        if not _FULL_ID.fullmatch(prefix):
            names = [name for name in self.names(Kind.SNAPSHOT) if prefix and name.startswith(prefix)]
        if len(names) != 1:
            problem = f"{len(names)} snapshots begin with" if names else "no snapshot has the id"
            raise SnapshotNotFound(f"{problem} {prefix!r}; `restic snapshots` lists them")
        try:
            return self._load_snapshot(names[0])
        except ObjectMissing:
            raise SnapshotNotFound(f"there is no snapshot {names[0]}, or not any more") from None

    def save_snapshot(self, snapshot: Snapshot) -> str:
        """Store a snapshot object; give its id. The one step that makes a backup exist."""
        return self.save_file(Kind.SNAPSHOT, snapshot.to_json())

    def forget(self, snapshot_id: str) -> None:
        """Remove a snapshot object. Its data goes when somebody prunes."""
        self.store.remove(Kind.SNAPSHOT, snapshot_id)

    def _load_snapshot(self, name: str) -> Snapshot:
        try:
            return Snapshot.from_json(self.load_file(Kind.SNAPSHOT, name), name)
        except ValueError as error:
            raise RepositoryDamaged(f"snapshots/{name} is malformed: {error}") from error

    def _read_place(self, kind: BlobType, blob_id: bytes, place: Place) -> bytes:
        sealed = self.store.load_range(Kind.PACK, place.pack.hex(), place.offset, place.length)
        try:
            return open_blob(self.key, blob_id, sealed, place.raw_length)
        except Damaged as error:
            raise RepositoryDamaged(
                f"data/{place.pack.hex()} is damaged: {kind.name.lower()} blob {blob_id.hex()}: {error}"
            ) from None

    def _read_index(self, superseded: frozenset[str]) -> Index:
        index = Index()
        replaced: set[str] = set()
        for name in self.names(Kind.INDEX):
            if name in superseded:
                continue
            try:
                entries, old = self.load_index(name)
            except RepositoryDamaged as error:
                if not self.lenient:
                    raise
                self.passed_over.append(str(error))
                continue
            replaced.update(old)
            for entry in entries:
                index.add(entry)
        if replaced - superseded:
            # Only old versions of restic wrote this, so that a second reading is the exception.
            return self._read_index(frozenset(replaced | superseded))
        return index
