"""Where things lie in a snapshot: `/disks/<volume>/disk.img`, one folder a disk, and `/vm/*.yaml`."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from coeval.mover.content import CHUNK_SIZE, ContentList
from coeval.mover.errors import VolumeNotFound
from coeval.repository.errors import InvalidArgument
from coeval.repository.pack import BlobType
from coeval.repository.repository import Repository
from coeval.repository.snapshot import Snapshot
from coeval.repository.tree import Node, encode_tree, safe_name
from coeval.repository.writer import BlobWriter

DISKS = "disks"
VM = "vm"
IMAGE = "disk.img"


def check_volume_name(name: str) -> None:
    """Raise InvalidArgument for a volume name that is no plain file name."""
    if not safe_name(name):
        raise InvalidArgument(f"--name {name}: use letters, digits, `.`, `_` and `-`")


def store_volume(writer: BlobWriter, name: str, content: ContentList, moment: datetime) -> bytes:
    """Store the folders of a snapshot with one volume; give the root's id."""
    image = Node(IMAGE, "file", size=content.size, content=content.ids)
    volume = _store_tree(writer, [image], moment)
    return store_root(writer, {name: volume}, {}, moment)


def store_root(
    writer: BlobWriter, volumes: Mapping[str, bytes], manifests: Mapping[str, Node], moment: datetime
) -> bytes:
    """Store a root over volumes' folders (name → tree id) and manifests, by id alone; give its id."""
    disks = _store_tree(writer, [Node(name, "dir", subtree=tree) for name, tree in volumes.items()], moment)
    top = [Node(DISKS, "dir", subtree=disks)]
    if manifests:
        top.append(Node(VM, "dir", subtree=_store_tree(writer, list(manifests.values()), moment)))
    return _store_tree(writer, top, moment)


def store_manifests(writer: BlobWriter, paths: list[Path]) -> dict[str, Node]:
    """Store manifest files. Raises InvalidArgument for unreadable ones and for names that do not do."""
    nodes: dict[str, Node] = {}
    for path in paths:
        if not safe_name(path.name) or path.name in nodes:
            raise InvalidArgument(
                f"--manifest {path}: each needs its own name of letters, digits, `.`, `_`, `-`"
            )
        try:
            if not stat.S_ISREG(path.stat().st_mode):
                raise InvalidArgument(f"--manifest {path}: not a file")
            text = path.read_bytes()
        except OSError as error:
            raise InvalidArgument(f"--manifest {path}: {error.strerror}") from error
        pieces = [text[at : at + CHUNK_SIZE] for at in range(0, len(text), CHUNK_SIZE)]
        ids = b"".join(writer.store(BlobType.DATA, piece) for piece in pieces)
        nodes[path.name] = Node(path.name, "file", size=len(text), content=ids)
    return nodes


def volume_trees(repository: Repository, snapshot: Snapshot) -> dict[str, bytes]:
    """Give the folder id of each volume in a snapshot."""
    disks = next((node for node in repository.load_tree(snapshot.tree) if node.name == DISKS), None)
    if disks is None or disks.subtree is None:
        return {}
    return {node.name: node.subtree for node in repository.load_tree(disks.subtree) if node.subtree}


def volume_image(repository: Repository, snapshot: Snapshot, volume: str) -> Node:
    """Give the image of a volume in a snapshot. Raises VolumeNotFound."""
    volumes = volume_trees(repository, snapshot)
    tree = volumes.get(volume)
    image = None
    if tree is not None:
        image = next((n for n in repository.load_tree(tree) if n.name == IMAGE and n.type == "file"), None)
    if image is None:
        there = ", ".join(sorted(volumes)) or "none"
        raise VolumeNotFound(
            f"--name {volume}: snapshot {snapshot.id[:8]} has no such volume; it has {there}"
        )
    return image


def image_path(volume: str) -> str:
    """Give the path of a volume's image in a snapshot."""
    return f"/{DISKS}/{volume}/{IMAGE}"


def _store_tree(writer: BlobWriter, nodes: list[Node], moment: datetime) -> bytes:
    return writer.store(BlobType.TREE, encode_tree(nodes, moment))
