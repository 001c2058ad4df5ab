"""The judge must be right before it may judge anything."""

import subprocess
import zlib
from pathlib import Path

import pytest

from tests.cluster.guest.judge import (
    HISTORY,
    RECORD,
    CannotJudge,
    Reading,
    decide,
    file_system,
    judge,
    main,
    order,
    parse,
    parse_record,
)


def record(disk: str, n: int) -> bytes:
    body = f"{n:020d} {disk}"
    return f"{f'{body} {zlib.crc32(body.encode()):08x}':<{RECORD - 1}}\n".encode()


def ring(disk: str, last: int) -> bytes:
    """A sequence file as the writer leaves it after step `last`."""
    content = bytearray(RECORD * min(last + 1, HISTORY))
    for n in range(max(1, last - HISTORY + 1), last + 1):
        slot = n % HISTORY * RECORD
        content[slot : slot + RECORD] = record(disk, n)
    return bytes(content)


@pytest.mark.parametrize(
    ("values", "steps"),
    [
        ([1, 0], 0),
        ([41, 41], 0),
        ([42, 41], 0),
        ([42, 43], 1),
        ([42, 40], 1),
        ([42, 142], 100),
        ([480, 100], 379),
        ([7, 7, 6, 6], 0),
        ([7, 6, 6, 6], 0),
        ([7, 6, 7, 6], 1),  # the second image disk ahead of the first direct disk
        ([7, 7, 7, 5], 1),
        ([7, 6, 6, 90], 84),
    ],
)
def test_steps_between_moments(values: list[int], steps: int) -> None:
    disks = ["a0", "b0", "a1", "b1"]
    verdict = decide([Reading(disk, value) for disk, value in zip(disks, values, strict=False)])
    assert verdict.steps == steps
    assert verdict.consistent == (steps == 0)


def test_the_sentence_names_the_disk_that_is_later() -> None:
    ahead = decide([Reading("a0", 480), Reading("b0", 100)])
    assert ahead.sentence == (
        "broken by 379 steps: a0 at step 480, b0 at step 100; a0 is of a later moment than b0"
    )
    assert (ahead.a, ahead.b) == (480, 100)
    behind = decide([Reading("a0", 9), Reading("b0", 10)])
    assert behind.sentence == "broken by 1 step: a0 at step 9, b0 at step 10; b0 is of a later moment than a0"
    fine = decide([Reading("a0", 10), Reading("b0", 10)])
    assert fine.sentence == "consistent: a0 at step 10, b0 at step 10, as at one moment"


def test_disks_of_the_right_step_but_mixed_content_are_broken() -> None:
    verdict = decide([Reading("a0", 10, lost=(3, 4)), Reading("b0", 10)])
    assert not verdict.consistent
    assert verdict.steps == 0
    assert "a0 mixes moments: 2 of its steps before 10" in verdict.sentence


def test_a_damaged_file_system_is_broken() -> None:
    verdict = decide([Reading("a0", 10), Reading("b0", 10, damage="bad block bitmap")])
    assert not verdict.consistent
    assert "b0 has a damaged file system (bad block bitmap)" in verdict.sentence


def test_nothing_written_is_no_verdict() -> None:
    with pytest.raises(CannotJudge):
        decide([Reading("a0", 0), Reading("b0", 0)])


def test_order_takes_images_and_direct_disks_in_turn() -> None:
    assert order(["b1", "b0", "a1", "a0"]) == ["a0", "b0", "a1", "b1"]


@pytest.mark.parametrize("last", [1, 2, HISTORY - 1, HISTORY, HISTORY + 1, 3 * HISTORY + 5])
def test_a_whole_ring_reads_back(last: int) -> None:
    assert parse("a0", ring("a0", last)) == Reading("a0", last)


@pytest.mark.parametrize("last", [100, HISTORY + 100])
def test_a_half_written_next_step_is_no_fault(last: int) -> None:
    content = bytearray(ring("a0", last).ljust(HISTORY * RECORD, b"\0"))
    slot = (last + 1) % HISTORY * RECORD
    content[slot : slot + 20] = b"x" * 20
    assert parse("a0", bytes(content)) == Reading("a0", last)


def test_one_stale_block_of_the_ring_is_found() -> None:
    now, before = bytearray(ring("a0", 2 * HISTORY)), ring("a0", HISTORY)
    now[4096:8192] = before[4096:8192]  # slots 64 to 127
    reading = parse("a0", bytes(now))
    assert reading.last == 2 * HISTORY
    assert reading.lost == tuple(range(HISTORY + 64, HISTORY + 128))


def test_a_record_of_another_disk_or_with_a_flipped_bit_is_none() -> None:
    good = record("a0", 77)
    assert parse_record("a0", good) == 77
    assert parse_record("b0", good) is None
    assert parse_record("a0", good.replace(b"77", b"78")) is None
    assert parse_record("a0", bytes(RECORD)) is None


def make_disk(path: Path, disk: str, last: int, *, partitioned: bool = False) -> Path:
    """A disk with a sequence, made by e2fsprogs without root."""
    tree = path.parent / f"{path.name}.tree"
    tree.mkdir()
    (tree / "sequence").write_bytes(ring(disk, last))
    offset = 1 << 20 if partitioned else 0
    with path.open("wb") as file:
        file.truncate((8 << 20) + offset)
        if partitioned:
            entry = (
                bytes([0, 0, 0, 0, 0x83, 0, 0, 0])
                + (2048).to_bytes(4, "little")
                + (16384).to_bytes(4, "little")
            )
            file.seek(446)
            file.write(entry)
            file.seek(510)
            file.write(b"\x55\xaa")
    options = ["-E", f"offset={offset}", "-d", str(tree)]
    subprocess.run(["mke2fs", "-q", "-t", "ext4", *options, str(path), "8m"], check=True, capture_output=True)
    return path


def test_disks_are_judged_and_left_alone(tmp_path: Path) -> None:
    a = make_disk(tmp_path / "a", "a0", 12, partitioned=True)
    b = make_disk(tmp_path / "b", "b0", 11)
    before = a.read_bytes(), b.read_bytes()
    assert judge({"b0": b, "a0": a}).sentence == "consistent: a0 at step 12, b0 at step 11, as at one moment"
    assert (a.read_bytes(), b.read_bytes()) == before


def test_the_command_tells_by_its_exit_status(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = make_disk(tmp_path / "a", "a0", 30), make_disk(tmp_path / "b", "b0", 12)
    assert main([f"a0={a}", f"b0={b}"]) == 1
    assert "broken by 17 steps" in capsys.readouterr().out
    assert main([f"a0={b}", f"b0={b}"]) == 1  # b0's records are not a0's
    assert main([f"a0={tmp_path / 'a'}", f"b0={a}"]) == 1


def test_a_disk_without_a_file_system_is_no_verdict(tmp_path: Path) -> None:
    blank = tmp_path / "blank"
    blank.write_bytes(bytes(1 << 20))
    with pytest.raises(CannotJudge, match="no ext4"):
        file_system(blank)
    assert main([f"a0={blank}", f"b0={blank}"]) == 2


def test_damage_is_seen(tmp_path: Path) -> None:
    a, b = make_disk(tmp_path / "a", "a0", 5), make_disk(tmp_path / "b", "b0", 5)
    subprocess.run(
        ["debugfs", "-w", "-R", "clri <2>", str(a)], check=True, capture_output=True
    )  # the root folder is gone
    verdict = judge({"a0": a, "b0": b})
    assert not verdict.consistent
    assert "a0 has a damaged file system" in verdict.sentence
