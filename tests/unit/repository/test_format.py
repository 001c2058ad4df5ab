"""The format's pieces against known values, and what they refuse."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from hashlib import sha256

import pytest
from coeval.repository import compression
from coeval.repository.compression import NotDecodable, compress_blob, decompress_blob, pack_file, unpack_file
from coeval.repository.config import Config
from coeval.repository.crypto import Key, Unauthentic
from coeval.repository.index import Index, PackEntry, decode_index, encode_index
from coeval.repository.pack import BlobType, Damaged, Pack, open_blob, read_header, seal_blob
from coeval.repository.polynomial import is_irreducible, random_irreducible
from coeval.repository.snapshot import Snapshot, parse_go_time
from coeval.repository.tree import MalformedTree, Node, decode_tree, encode_tree, go_time

KEY = Key(bytes(range(32)), bytes(range(16)), bytes(range(16, 32)))


def test_poly1305_aes_gives_the_tag_of_its_paper() -> None:
    # D. J. Bernstein, The Poly1305-AES message-authentication code, appendix B.
    key = Key(
        bytes(32),
        bytes.fromhex("ec074c835580741701425b623235add6"),
        bytes.fromhex("851fc40c3467ac0be05cc20404f3f700"),
    )
    mac = key._mac(bytes.fromhex("fb447350c4e868c52ac3275cf9d4327e"), bytes.fromhex("f3f6"))
    assert mac.finalize().hex() == "f4c633c3044fc145f84f335cb81953de"


def test_scrypt_derives_the_key_of_rfc_7914() -> None:
    key = Key.derive(b"pleaseletmein", salt=b"SodiumChloride", n=16384, r=8, p=1)
    expected = (
        "7023bdcb3afd7348461c06cd81fd38ebfda8fbba904f8e3ea9b543f6545da1f2"
        "d5432955613f0fcf62d49705242a9af9e61e85dc0d651e40dfcf017b45575887"
    )
    assert (key.encrypt + key.mac_k + key.mac_r).hex() == expected


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 4096])
def test_a_sealed_message_opens_to_itself_and_nothing_changed_does(size: int) -> None:
    message = bytes(range(256)) * 16
    sealed = KEY.seal(message[:size])
    assert len(sealed) == size + 32
    assert KEY.open(sealed) == message[:size]
    for at in range(0, len(sealed), max(1, len(sealed) // 40)):
        damaged = bytearray(sealed)
        damaged[at] ^= 1
        with pytest.raises(Unauthentic):
            KEY.open(damaged)
    with pytest.raises(Unauthentic):
        KEY.open(sealed[:31])


def test_the_master_key_is_written_and_read_as_json() -> None:
    assert Key.from_json(KEY.to_json()) == KEY
    for wrong in (b"{}", b"[]", b'{"mac":{"k":"AA==","r":"AA=="},"encrypt":"AA=="}'):
        with pytest.raises(ValueError, match="master key"):
            Key.from_json(wrong)


def test_irreducibility_agrees_with_trial_division() -> None:
    def divides(a: int, b: int) -> bool:
        while b.bit_length() >= a.bit_length():
            b ^= a << (b.bit_length() - a.bit_length())
        return b == 0

    for f in range(2, 1 << 9):
        prime = not any(divides(d, f) for d in range(2, 1 << ((f.bit_length() - 1) // 2 + 1)))
        assert is_irreducible(f) == prime, f"{f:b}"
    assert is_irreducible(0x3DA3358B4DC173)  # the one that restic's chunker documents
    assert random_irreducible().bit_length() == 54


def test_a_config_of_another_version_is_refused() -> None:
    config = Config.new()
    assert Config.from_json(config.to_json()) == config
    with pytest.raises(ValueError, match="version is 1"):
        Config.from_json(config.to_json().replace(b'"version":2', b'"version":1'))
    with pytest.raises(ValueError, match="reducible"):
        Config.from_json(
            json.dumps({"version": 2, "id": "x", "chunker_polynomial": "20000000000004"}).encode()
        )


def test_what_does_not_shrink_is_stored_as_it_is() -> None:
    noise = b"".join(sha256(number.to_bytes(4)).digest() for number in range(1 << 15))
    assert compress_blob(noise) is None
    for at in (0, len(noise) // 16 * 15):
        mixed = bytearray(noise)
        mixed[at : at + 40960] = bytes(40960)
        packed = compress_blob(mixed)
        assert packed is not None and decompress_blob(packed, len(mixed)) == mixed
    assert compress_blob(noise[:100]) is None and compress_blob(bytes(100)) is not None


def test_trees_are_written_byte_for_byte_as_restic_does() -> None:
    moment = datetime(2026, 1, 2, 3, 4, 5, 120000, tzinfo=UTC)
    file = Node("disk.img", "file", size=3, content=bytes(32) + b"\xff" * 32)
    folder = Node("a", "dir", subtree=b"\x01" * 32)
    times = "".join(f',"{kind}time":"2026-01-02T03:04:05.12Z"' for kind in "mac")
    owner = ',"uid":107,"gid":107'
    assert encode_tree([file, folder], moment).decode() == (
        '{"nodes":[{"name":"a","type":"dir","mode":2147484141' + times + owner + ',"content":null,'
        f'"subtree":"{"01" * 32}"}},{{"name":"disk.img","type":"file","mode":432'
        + times
        + owner
        + f',"size":3,"content":["{"00" * 32}","{"ff" * 32}"]}}]}}\n'
    )
    assert decode_tree(bytes(encode_tree([file, folder], moment))) == [folder, file]
    empty = Node("empty", "file")
    assert b'"content":[]' in encode_tree([empty], moment)
    assert decode_tree(bytes(encode_tree([empty], moment))) == [empty]


@pytest.mark.parametrize("count", [1, 2, 4095, 4096, 4097, 8192, 8193])
def test_a_long_list_of_ids_is_the_same_in_pieces(count: int) -> None:
    ids = b"".join(sha256(number.to_bytes(4)).digest() for number in range(count))
    nodes = [Node("a", "file", size=1, content=ids), Node("b", "file", size=1, content=ids[:32])]
    text = bytes(encode_tree(nodes, datetime.now(UTC)))
    listed = [node["content"] for node in json.loads(text)["nodes"]]
    assert listed == [[ids[at : at + 32].hex() for at in range(0, len(ids), 32)], [ids[:32].hex()]]
    assert decode_tree(text) == nodes
    assert decode_tree(text.replace(b'":[', b'": [')) == nodes, "as another writer may put it"
    first = text.index(b'"content":[') + len(b'"content":[')
    for at in (first + 7, first + 65, first + 67 * (count - 1) + 3, first + 67 * count - 1):
        with pytest.raises(MalformedTree):
            decode_tree(text[:at] + b"," + text[at:])


def test_a_name_that_looks_like_a_content_list_is_a_name() -> None:
    evil = '"content":["' + "00" * 32 + '"]'
    text = json.dumps({"nodes": [{"name": evil.replace('"', '\\"'), "type": "file", "content": ["11" * 32]}]})
    [node] = decode_tree(text.encode())
    assert node.name == evil and node.content == b"\x11" * 32


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b'{"nodes":[{}]}',
        b'{"nodes":[{"name":"x","type":"file","content":["00"]}]}',
        b'{"nodes":7}',
    ],
)
def test_a_malformed_tree_is_refused(text: bytes) -> None:
    with pytest.raises(MalformedTree):
        decode_tree(text)


def test_unsafe_names_are_not_written() -> None:
    for name in ("", ".", "..", "a/b", 'a"b', "ä", "-\n"):
        with pytest.raises(ValueError, match="safe"):
            encode_tree([Node(name, "file")], datetime.now(UTC))


def test_times_are_gos() -> None:
    assert go_time(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)) == "2026-01-02T03:04:05Z"
    assert go_time(parse_go_time("2026-01-02T03:04:05.123456789+02:00")) == "2026-01-02T01:04:05.123456Z"
    with pytest.raises(ValueError, match="zone"):
        parse_go_time("2026-01-02T03:04:05")


def test_a_snapshot_survives_its_json() -> None:
    snapshot = Snapshot(
        b"\x07" * 32, datetime(2026, 1, 1, tzinfo=UTC), ("/disks",), ("a=b",), joined=("x",), id="i"
    )
    assert Snapshot.from_json(snapshot.to_json(), "i") == snapshot
    for wrong in (b"{}", b"[]", b"null", b'{"tree":"zz","time":"2026-01-01T00:00:00Z"}'):
        with pytest.raises(ValueError, match=r"."):
            Snapshot.from_json(wrong, "i")


@pytest.mark.parametrize("piece", [None, 7, 12000, 11999])
def test_compression_is_undone_and_damage_seen(monkeypatch: pytest.MonkeyPatch, piece: int | None) -> None:
    if piece:
        monkeypatch.setattr(compression, "_PIECE", piece)
    text = b"all is well " * 1000
    packed = compress_blob(text)
    assert packed is not None and len(packed) < 100
    assert decompress_blob(packed, len(text)) == text
    for wrong in (bytes(packed[:-1]), bytes(packed) + b"x", b"no frame"):
        with pytest.raises(NotDecodable):
            decompress_blob(wrong, len(text))
    with pytest.raises(NotDecodable):
        decompress_blob(packed, len(text) - 1)
    assert compress_blob(sha256(b"random enough").digest()) is None
    assert unpack_file(pack_file(b"{}")) == b"{}"
    assert unpack_file(b'{"plain":1}') == b'{"plain":1}'
    with pytest.raises(NotDecodable):
        unpack_file(b"\x03rest")


def test_a_pack_lists_its_blobs_at_its_end() -> None:
    texts = [b"compressible " * 100, sha256(b"random").digest(), bytes(5000)]
    pack = Pack(BlobType.DATA)
    for text in texts:
        pack.add(seal_blob(KEY, sha256(text).digest(), text))
    pack_id, parts = pack.finish(KEY)
    whole = b"".join(parts)
    assert sha256(whole).digest() == pack_id
    entries = read_header(KEY, whole)
    assert [entry[4] > 0 for entry in entries] == [True, False, True]
    for text, (kind, blob_id, offset, length, raw_length) in zip(texts, entries, strict=True):
        assert kind is BlobType.DATA
        assert open_blob(KEY, blob_id, whole[offset : offset + length], raw_length) == text
        with pytest.raises(Damaged, match="hash"):
            open_blob(KEY, bytes(32), whole[offset : offset + length], raw_length)
    for wrong in (b"", whole[:-1], whole[1:], whole[:-4] + bytes(4), whole[:-4] + b"\xff" * 4):
        with pytest.raises(Damaged):
            read_header(KEY, wrong)


def test_the_index_finds_every_place_of_every_blob() -> None:
    index = Index()
    ids = [sha256(b"%d" % n).digest() for n in range(5000)]
    for n in range(0, 5000, 50):
        index.add(PackEntry(ids[n], BlobType.DATA, [(ids[n + k], k * 10, 10, k) for k in range(50)]))
    assert len(index) == 5000
    index.add(PackEntry(bytes(32), BlobType.DATA, [(ids[77], 5, 6, 7)]))
    index.add(PackEntry(bytes(32), BlobType.DATA, [(ids[77], 5, 6, 7)]))
    assert sorted((place.pack, place.offset) for place in index.find(BlobType.DATA, ids[77])) == sorted(
        [(ids[50], 270), (bytes(32), 5)]
    )
    assert all(index.has(BlobType.DATA, blob_id) for blob_id in ids)
    assert not index.has(BlobType.TREE, ids[0])
    assert not index.has(BlobType.DATA, sha256(b"other").digest())
    numbers = {index.number(BlobType.DATA, blob_id) for blob_id in ids}
    assert len(numbers) == 5000 and max(n for n in numbers if n is not None) < len(index)


def test_an_index_file_survives_its_json_and_names_what_it_supersedes() -> None:
    entries = [PackEntry(b"\x01" * 32, BlobType.TREE, [(b"\x02" * 32, 0, 40, 0), (b"\x03" * 32, 40, 50, 90)])]
    assert decode_index(encode_index(entries)) == (entries, [])
    assert decode_index(b'{"supersedes":["ab"],"packs":[]}') == ([], ["ab"])


def test_an_index_that_rustic_wrote_after_a_prune() -> None:
    """It has null where restic leaves a field out, and packs that wait to be deleted: those do not count."""
    pack, blob = "ab" * 32, "cd" * 32
    listed = '[{"id":"%s","time":"2026-01-01T00:00:00Z","blobs":[{"id":"%s","type":"data","offset":0,%s}]}]'
    packs = listed % (pack, blob, '"length":40,"uncompressed_length":null')
    marked = listed % ("ef" * 32, blob, '"length":40,"uncompressed_length":99')
    text = f'{{"packs":{packs},"packs_to_delete":{marked}}}'.encode()
    [entry], _ = decode_index(text)
    assert entry == PackEntry(bytes.fromhex(pack), BlobType.DATA, [(bytes.fromhex(blob), 0, 40, 0)])
