"""What damage means to people: the volumes and the backups that cannot be read in full because of it.

Asked for only once damage was found: every snapshot's folders are walked. Folders that snapshots share are
looked at once, and a file is let go of at its first lost chunk.
"""

from __future__ import annotations

from collections.abc import Iterable

from coeval.mover import tags
from coeval.mover.layout import DISKS
from coeval.repository.errors import RepositoryDamaged
from coeval.repository.pack import BlobType
from coeval.repository.repository import Repository
from coeval.repository.snapshot import Snapshot
from coeval.repository.tree import Node


class Harm:
    """What is lost with some damaged packs."""

    def __init__(self, repository: Repository, packs: Iterable[bytes]) -> None:
        self._repository = repository
        self._packs = frozenset(packs)
        self._lost: dict[bytes, bool] = {}
        self._harmed: dict[bytes, bool] = {}

    def told(self, snapshot: Snapshot) -> str:
        """Name what of the snapshot is not whole, and the other snapshots; empty where nothing is lost."""
        own, others = self.parts(snapshot), self.others(snapshot)
        text = f"cannot be read in full: {tags.some(own)}; " if own else ""
        return text + (f"nor can these snapshots: {tags.some(others)}; " if others else "")

    def parts(self, snapshot: Snapshot) -> list[str]:
        """Name the snapshot's volumes, and its other files, that are not whole."""
        try:
            top = {node.name: node for node in self._repository.load_tree(snapshot.tree)}
            disks = top.pop(DISKS, None)
            volumes = self._repository.load_tree(disks.subtree) if disks and disks.subtree else []
        except RepositoryDamaged:
            return ["all volumes"]
        harmed = [f"volume {node.name}" for node in volumes if self._node(node)]
        return harmed + [f"/{name}" for name, node in top.items() if self._node(node)]

    def others(self, snapshot: Snapshot) -> list[str]:
        """Name the other snapshots that are not whole, newest first. One that cannot be read is left out."""
        found = [s for s in self._repository.snapshots([]) if s.id != snapshot.id and self._tree(s.tree)]
        return [tags.label(s) for s in reversed(found)]

    def _tree(self, tree: bytes) -> bool:
        if tree not in self._harmed:
            try:
                nodes = self._repository.load_tree(tree)
            except RepositoryDamaged:
                self._harmed[tree] = True
            else:
                self._harmed[tree] = any(self._node(node) for node in nodes)
        return self._harmed[tree]

    def _node(self, node: Node) -> bool:
        if node.subtree is not None:
            return self._tree(node.subtree)
        before = b""
        for at in range(0, len(node.content), 32):
            blob_id = bytes(node.content[at : at + 32])
            if blob_id != before and self._chunk(blob_id):  # neighbours repeat where there are zeros
                return True
            before = blob_id
        return False

    def _chunk(self, blob_id: bytes) -> bool:
        places = self._repository.index.find(BlobType.DATA, blob_id)
        if not self._packs.intersection(place.pack for place in places):
            return not places
        if blob_id not in self._lost:
            try:
                self._repository.load_blob(BlobType.DATA, blob_id)
                self._lost[blob_id] = False
            except RepositoryDamaged:
                self._lost[blob_id] = True
        return self._lost[blob_id]
