"""Trees: folders as JSON, byte for byte as restic writes them, so that equal folders have equal ids.

A node of a 1 TiB image lists a million ids. They are kept as one byte string, never as a million objects.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from coeval.repository.documents import MALFORMED, identity, parse_document

OWNER = 107
"""uid and gid of the hypervisor in KubeVirt: `restic restore` as root gives it its images back."""

FILE_MODE = 0o660
DIR_MODE = 0x80000000 | 0o755  # Go's os.ModeDir

_SAFE_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")
_CONTENT = b'"content":['
_IDS = re.compile(rb'"[0-9a-f]{64}"(?:,"[0-9a-f]{64}")*')
_QUOTED = 67
"""Bytes of an id in a list: digits, quotes and a comma."""
_PIECE = 32 << 12
_GO_ESCAPE = re.compile(r"\\(?:([abfnrtv\\\"'])|x([0-9a-f]{2})|u([0-9a-f]{4})|U([0-9a-f]{8}))")
_GO_CHARACTERS = dict(zip("abfnrtv", "\a\b\f\n\r\t\v", strict=True))


class MalformedTree(Exception):
    """A tree blob does not hold a tree."""


@dataclass(frozen=True)
class Node:
    """An entry of a folder. `size` in bytes; `content` the ids of a file's blobs, 32 bytes each."""

    name: str
    type: str
    size: int = 0
    content: bytes | bytearray = b""
    subtree: bytes | None = None


def safe_name(name: str) -> bool:
    """Tell whether a name needs no escaping anywhere: letters, digits, `.`, `_`, `-`."""
    return _SAFE_NAME.fullmatch(name) is not None


def encode_tree(nodes: Iterable[Node], time: datetime) -> bytearray:
    """Write a folder with safe names; every node bears the same time. Raises ValueError on other names."""
    ordered = sorted(nodes, key=lambda node: node.name.encode())
    out = bytearray(b'{"nodes":[')
    for number, node in enumerate(ordered):
        out += b"," if number else b""
        for part in _encode_node(node, go_time(time)):
            out += part
    out += b"]}\n"
    return out


def decode_tree(text: bytes) -> list[Node]:
    """Parse a folder, ours or restic's. Raises MalformedTree."""
    slim, contents = _cut_contents(text)
    try:
        return [_decode_node(doc, contents) for doc in parse_document(slim)["nodes"] or []]
    except MALFORMED as error:
        raise MalformedTree(str(error)) from error


def go_time(time: datetime) -> str:
    """Format a moment as Go does: RFC 3339, UTC, no trailing zeros in the fraction."""
    text = time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f").rstrip("0").rstrip(".")
    return f"{text}Z"


def _encode_node(node: Node, time: str) -> Iterator[bytes]:
    """Write a node, in parts: one list of ids may have hundreds of MiB."""
    if not safe_name(node.name):
        raise ValueError(f"{node.name!r} is not a safe name")
    folder = node.type == "dir"
    doc: dict[str, Any] = {"name": node.name, "type": node.type, "mode": DIR_MODE if folder else FILE_MODE}
    doc |= {"mtime": time, "atime": time, "ctime": time, "uid": OWNER, "gid": OWNER}
    if node.size:
        doc["size"] = node.size
    head = json.dumps(doc, separators=(",", ":"))[:-1].encode()
    if node.subtree is not None:
        yield head + b',"content":null,"subtree":"' + node.subtree.hex().encode() + b'"}'
        return
    yield head + b"," + _CONTENT
    for at in range(0, len(node.content), _PIECE):
        digits = node.content[at : at + _PIECE].hex(",", 32).replace(",", '","')
        yield f'{"," if at else ""}"{digits}"'.encode()
    yield b"]}"


def _cut_contents(text: bytes) -> tuple[bytes, list[bytearray]]:
    """Replace each list of ids by the number of its bytes in `contents`. A quote inside a name is escaped,
    so that the key cannot be mistaken for part of a string."""
    pieces: list[bytes] = []
    contents: list[bytearray] = []
    start = 0
    while (at := text.find(_CONTENT, start)) >= 0:
        begin = at + len(_CONTENT)
        end = text.find(b"]", begin)
        ids = _read_ids(text, begin, end)
        if ids is None:
            pieces.append(text[start:begin])
            start = begin
            continue
        pieces.append(text[start : begin - 1] + str(len(contents)).encode())
        contents.append(ids)
        start = end + 1
    return b"".join(pieces) + text[start:], contents


def _read_ids(text: bytes, begin: int, end: int) -> bytearray | None:
    """Read a list of ids between its brackets, a piece at a time; None unless it is exactly that."""
    if text[end - 1 : end] != b'"':
        return None
    ids = bytearray()
    width = _PIECE // 32 * _QUOTED
    for at in range(begin, end, width):
        stop = min(at + width, end + 1)  # with the comma or the bracket behind the last
        if _IDS.fullmatch(text, at, stop - 1) is None or (stop <= end and text[stop - 1] != ord(",")):
            return None
        ids += bytes.fromhex(text[at + 1 : stop - 2].replace(b'","', b"").decode())
    return ids or None


def _decode_node(doc: dict[str, Any], contents: list[bytearray]) -> Node:
    content = doc.get("content")
    ids: bytes | bytearray
    if isinstance(content, int) and content >= 0:
        ids = contents[content]
    else:
        ids = b"".join(identity(text) for text in content or [])
    subtree = identity(doc["subtree"]) if doc.get("subtree") else None
    return Node(_unquote(str(doc["name"])), str(doc["type"]), int(doc.get("size", 0)), ids, subtree)


def _unquote(name: str) -> str:
    """Undo Go's strconv.Quote, which restic applies to names inside the JSON."""

    def character(match: re.Match[str]) -> str:
        if short := match[1]:
            return _GO_CHARACTERS.get(short, short)
        if match[2]:
            return bytes([int(match[2], 16)]).decode(errors="surrogateescape")
        return chr(int(match[3] or match[4], 16))

    return _GO_ESCAPE.sub(character, name)
