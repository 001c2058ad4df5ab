"""Where things lie in a snapshot: `/disks/<volume>/disk.img`, one folder a disk, and `/vm/*.yaml`."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from coeval.mover.content import CHUNK_SIZE, ContentList, load_content
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
EXTENTS = "disk.extents"
"""Beside an image that was a file: where its blocks were on the device (see mover.changes.extents)."""


def check_volume_name(name: str) -> None:
    """Raise InvalidArgument for a volume name that is no plain file name."""
    if not safe_name(name):
        raise InvalidArgument(f"--name {name}: use letters, digits, `.`, `_` and `-`")


def store_volume(
    writer: BlobWriter, name: str, content: ContentList, moment: datetime, extents: bytes | None = None
) -> bytes:
    """Store the folders of a snapshot with one volume, and its encoded extent map; give the root's id."""
    files = [Node(IMAGE, "file", size=content.size, content=content.ids)]
    if extents is not None:
        files.append(_store_file(writer, EXTENTS, extents))
    volume = _store_tree(writer, files, moment)
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
        nodes[path.name] = _store_file(writer, path.name, text)
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
    image = _file(repository, volumes.get(volume), IMAGE)
    if image is None:
        there = ", ".join(sorted(volumes)) or "none"
        raise VolumeNotFound(
            f"--name {volume}: snapshot {snapshot.id[:8]} has no such volume; it has {there}"
        )
    return image


def volume_extents(repository: Repository, snapshot: Snapshot, volume: str) -> bytes | None:
    """Give the encoded extent map beside a volume's image, if one was recorded. Raises RepositoryDamaged."""
    node = _file(repository, volume_trees(repository, snapshot).get(volume), EXTENTS)
    if node is None:
        return None
    content = load_content(repository, node, f"snapshot {snapshot.id}: /{DISKS}/{volume}/{EXTENTS}")
    return b"".join(repository.load_blob(BlobType.DATA, content.id(slot)) for slot in range(len(content)))


def image_path(volume: str) -> str:
    """Give the path of a volume's image in a snapshot."""
    return f"/{DISKS}/{volume}/{IMAGE}"


def _file(repository: Repository, tree: bytes | None, name: str) -> Node | None:
    nodes = repository.load_tree(tree) if tree is not None else []
    return next((node for node in nodes if node.name == name and node.type == "file"), None)


def _store_file(writer: BlobWriter, name: str, text: bytes) -> Node:
    pieces = [text[at : at + CHUNK_SIZE] for at in range(0, len(text), CHUNK_SIZE)]
    ids = b"".join(writer.store(BlobType.DATA, piece) for piece in pieces)
    return Node(name, "file", size=len(text), content=ids)


def _store_tree(writer: BlobWriter, nodes: list[Node], moment: datetime) -> bytes:
    return writer.store(BlobType.TREE, encode_tree(nodes, moment))
