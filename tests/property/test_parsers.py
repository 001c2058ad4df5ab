"""Every parser of the data plane on broken documents: its own error or a result, soon, in bounded memory."""

from __future__ import annotations

import json
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import suppress
from copy import deepcopy
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from coeval.mover.errors import InvalidRanges
from coeval.mover.ranges import Ranges, read_ranges
from coeval.repository.compression import NotDecodable, compress_blob, decompress_blob, pack_file, unpack_file
from coeval.repository.config import Config
from coeval.repository.crypto import Key, hash_id
from coeval.repository.errors import RepositoryDamaged, WrongPassword
from coeval.repository.index import MalformedIndex, PackEntry, decode_index, encode_index
from coeval.repository.keys import find_key
from coeval.repository.lock import LockInfo
from coeval.repository.pack import BlobType, Damaged, Pack, read_header, seal_blob
from coeval.repository.snapshot import Snapshot, parse_go_time
from coeval.repository.store import Kind
from coeval.repository.tree import MalformedTree, Node, decode_tree, encode_tree
from hypothesis import given
from hypothesis import strategies as st

from tests.tools.examples import examples
from tests.tools.repositories import PASSWORD, MemoryStore, new_repository

KEY = Key(bytes(range(32)), bytes(16), bytes(16))
T1 = datetime(2026, 1, 1, tzinfo=UTC)
MEMORY = 64 << 20
SECONDS = 20
"""Far above what any document here needs, and far below what a loop or a table without end takes."""


@cache
def repository_with_key() -> tuple[MemoryStore, bytes]:
    store = MemoryStore()
    new_repository(store)
    return store, next(content for (kind, _), content in store.objects.items() if kind is Kind.KEY)


def open_with_key(text: bytes) -> object:
    """Take a document for the repository's only key file, under the name that fits it."""
    store = MemoryStore()
    store.objects = {
        name: content for name, content in repository_with_key()[0].objects.items() if name[0] is not Kind.KEY
    }
    store.objects[Kind.KEY, hash_id(text).hex()] = text
    return find_key(store, PASSWORD)


def read_lock(text: bytes) -> object:
    return LockInfo.parse("name", text).stale(T1)


def read_snapshot(text: bytes) -> object:
    snapshot = Snapshot.from_json(text, "id")
    assert len(snapshot.tree) == 32 and all(isinstance(tag, str) for tag in (*snapshot.tags, *snapshot.paths))
    return snapshot.to_json()


def a_pack() -> Pack:
    pack = Pack(BlobType.DATA)
    for text in (b"compressible " * 20, hash_id(b"random")):
        pack.add(seal_blob(KEY, hash_id(text), text))
    return pack


def read_pack_header(header: bytes) -> object:
    """Take bytes for the plaintext of a pack's header: authentic, but not what it must be."""
    sealed = KEY.seal(header)
    return read_header(KEY, bytes(100) + sealed + len(sealed).to_bytes(4, "little"))


def header_plaintext() -> bytes:
    whole = b"".join(a_pack().finish(KEY)[1])
    length = int.from_bytes(whole[-4:], "little")
    return KEY.open(whole[-4 - length : -4])


PARSERS: dict[str, tuple[Callable[[bytes], object], tuple[type[Exception], ...], Callable[[], bytes]]] = {
    "config": (Config.from_json, (ValueError,), lambda: Config(2, "ab" * 32, 0x3DA3358B4DC173).to_json()),
    "master key": (Key.from_json, (ValueError,), KEY.to_json),
    "key file": (open_with_key, (RepositoryDamaged, WrongPassword), lambda: repository_with_key()[1]),
    "lock": (
        read_lock,
        (ValueError,),
        lambda: b'{"time":"2026-01-01T00:00:00Z","exclusive":true,"hostname":"h","username":"u","pid":7}',
    ),
    "snapshot": (
        read_snapshot,
        (ValueError,),
        lambda: Snapshot(bytes(32), T1, ("/d",), ("a=b",), joined=("x",), summary={"n": 1}).to_json(),
    ),
    "index": (
        decode_index,
        (MalformedIndex,),
        lambda: encode_index(
            [PackEntry(bytes(32), BlobType.TREE, [(bytes(32), 0, 40, 0), (b"\1" * 32, 40, 50, 90)])], ["old"]
        ),
    ),
    "tree": (
        decode_tree,
        (MalformedTree,),
        lambda: bytes(
            encode_tree(
                [Node("disk.img", "file", size=3, content=bytes(64)), Node("a", "dir", subtree=bytes(32))], T1
            )
        ),
    ),
    "pack header": (read_pack_header, (Damaged,), header_plaintext),
    "pack": (lambda text: read_header(KEY, text), (Damaged,), lambda: b"".join(a_pack().finish(KEY)[1])),
    "unpacked file": (unpack_file, (NotDecodable,), lambda: pack_file(b'{"a":' + b"1" * 500 + b"}")),
    "blob": (
        lambda text: decompress_blob(text, 5000),
        (NotDecodable,),
        lambda: bytes(compress_blob(bytes(5000)) or b""),
    ),
    "time": (
        lambda text: parse_go_time(text.decode("latin-1")),
        (ValueError,),
        lambda: b"2026-01-01T00:00:00.5Z",
    ),
}
JSON = ["config", "master key", "key file", "lock", "snapshot", "index", "tree"]


def attempt(parser: str, text: bytes) -> None:
    parse, errors, _ = PARSERS[parser]
    begun = time.process_time()
    tracemalloc.start()
    try:
        with suppress(*errors):
            parse(text)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < MEMORY, f"{peak} bytes at once"
    assert time.process_time() - begun < SECONDS


@pytest.mark.parametrize("parser", PARSERS)
@examples(60)
@given(data=st.data())
def test_bytes_that_were_changed(parser: str, data: st.DataObject) -> None:
    text = bytearray(PARSERS[parser][2]())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(text)))
        new = data.draw(st.binary(max_size=8))
        text[at : at + data.draw(st.sampled_from([0, len(new), 1, 9, 1 << 20]))] = new
    attempt(parser, bytes(text))


@pytest.mark.parametrize("parser", PARSERS)
@examples(60)
@given(text=st.binary(max_size=300))
def test_any_bytes(parser: str, text: bytes) -> None:
    attempt(parser, text)


VALUES: st.SearchStrategy[Any] = st.sampled_from(
    [
        *(None, True, False, 0, 1, -1, 2, 255, 1 << 31, 1 << 32, 1 << 63, 1 << 64, -(1 << 63), 10**30, 0.5),
        *(
            float("inf"),
            float("-inf"),
            float("nan"),
            1e308,
            "",
            "0",
            "ff" * 32,
            "zz" * 32,
            "f" * 63,
            "\ud800",
        ),
        *("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "2026-01-01T00:00:00", "\\U7fffffff"),
        *("\\Uffffffff", [], {}, [[]], [None], [1], {"a": 1}, ["ff" * 32], "AAAA", "data", "x" * 5000),
        *("f" * 20000, "1" * 5000),
    ]
)


def places(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    if isinstance(document, dict | list):
        items = document.items() if isinstance(document, dict) else enumerate(document)
        for key, value in items:
            yield from places(value, (*path, key))


def changed(document: Any, path: tuple[Any, ...], value: object, *, remove: bool) -> Any:
    value = deepcopy(value)
    if not path:
        return value
    at = document
    for key in path[:-1]:
        at = at[key]
    if remove:
        del at[path[-1]]
    else:
        at[path[-1]] = value
    return document


@pytest.mark.parametrize("parser", JSON)
@examples(150)
@given(data=st.data())
def test_documents_with_other_values(parser: str, data: st.DataObject) -> None:
    document = json.loads(PARSERS[parser][2]())
    for _ in range(data.draw(st.integers(1, 2))):
        path = data.draw(st.sampled_from(list(places(document))))
        document = changed(document, path, data.draw(VALUES), remove=data.draw(st.booleans()))
    attempt(parser, json.dumps(document).encode())


@pytest.mark.parametrize("parser", JSON)
@pytest.mark.parametrize("text", [b"[" * 200_000, b'{"a":' * 200_000, b"9" * 100_000, b"\xff\xfe{", b'"' * 9])
def test_documents_that_break_json_parsers(parser: str, text: bytes) -> None:
    parse, errors, _ = PARSERS[parser]
    with pytest.raises(errors):
        parse(text)


@pytest.mark.parametrize(
    "cost", [(1 << 24, 8, 1), (1 << 15, 8, 1 << 20), (1 << 62, 8, 1), (2, 1 << 29, 1), (2, 8, 1 << 70)]
)
def test_a_key_file_that_asks_for_all_our_memory_or_time_is_refused(cost: tuple[int, int, int]) -> None:
    document = json.loads(repository_with_key()[1]) | dict(zip("Nrp", cost, strict=True))
    with pytest.raises(RepositoryDamaged, match="exhaust"):
        open_with_key(json.dumps(document).encode())


def test_a_blob_that_unpacks_to_far_more_than_it_says_is_cut_short() -> None:
    bomb = bytes(compress_blob(bytes(256 << 20)) or b"")
    tracemalloc.start()
    try:
        with pytest.raises(NotDecodable):
            decompress_blob(bomb, 1 << 20)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


@examples(150)
@given(data=st.data())
def test_changed_ranges(tmp_path: Path, data: st.DataObject) -> None:
    document: Any = {"size": 100, "ranges": [[0, 5], [7, 3], [50, 50]]}
    for _ in range(data.draw(st.integers(0, 2))):
        path = data.draw(st.sampled_from(list(places(document))))
        document = changed(document, path, data.draw(VALUES), remove=data.draw(st.booleans()))
    text = bytearray(json.dumps(document).encode())
    if data.draw(st.booleans()):
        at = data.draw(st.integers(0, len(text)))
        text[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    (tmp_path / "ranges").write_bytes(text)
    try:
        ranges = read_ranges(tmp_path / "ranges")
    except InvalidRanges as error:
        assert str(tmp_path / "ranges") in str(error)
        return
    assert isinstance(ranges, Ranges)
    end = 0
    for offset, length in ranges.ranges:
        assert end <= offset and length > 0
        end = offset + length
    assert end <= ranges.size


def test_ranges_that_break_json_parsers(tmp_path: Path) -> None:
    for text in (b"[" * 200_000, b'{"size":' * 200_000, b"\xff", b"9" * 100_000):
        (tmp_path / "ranges").write_bytes(text)
        with pytest.raises(InvalidRanges):
            read_ranges(tmp_path / "ranges")
