"""The guest and its judge, under plain QEMU: no cluster."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.guest.judge import judge, read_disk
from tests.cluster.guest.qemu import Guest, blank_disk, boot_disk, copy_disk, running
from tests.cluster.guest.upstream import GUEST
from tests.e2e.harness import command


def test_the_programs_of_the_guest_pass_their_own_tests() -> None:
    command("env", "GOTOOLCHAIN=local", "GOFLAGS=-buildvcs=false", "go", "-C", GUEST.wrapper, "test", "./...")


@pytest.fixture(scope="module")
def disks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("disks")
    return {"a0": boot_disk(folder / "a0", "rate=40"), "b0": blank_disk(folder / "b0")}


@pytest.fixture(scope="module")
def guest(disks: dict[str, Path]) -> Iterator[Guest]:
    with running(disks) as guest:
        guest.wait_for_step(20)
        yield guest


def test_a_frozen_moment_is_consistent_and_mixed_moments_are_broken(
    guest: Guest, disks: dict[str, Path], tmp_path: Path
) -> None:
    with guest.frozen() as count:
        assert count == len(disks)
        at_t1 = {name: copy_disk(path, tmp_path / f"{name}-t1") for name, path in disks.items()}
    first = judge(at_t1)
    assert first.consistent, first.sentence

    guest.wait_for_step(first.a + 50)
    with guest.frozen():
        at_t2 = {name: copy_disk(path, tmp_path / f"{name}-t2") for name, path in disks.items()}
    second = judge(at_t2)
    assert second.consistent, second.sentence
    assert second.a >= first.a + 50

    image_later = judge({"a0": at_t2["a0"], "b0": at_t1["b0"]})
    assert not image_later.consistent
    assert image_later.steps == second.a - first.b - 1
    direct_later = judge({"a0": at_t1["a0"], "b0": at_t2["b0"]})
    assert not direct_later.consistent
    assert direct_later.steps == second.b - first.a


def test_one_block_of_another_moment_is_found(guest: Guest, disks: dict[str, Path], tmp_path: Path) -> None:
    """The step numbers alone would not show it: the newest one is in place."""
    with guest.frozen():
        early = copy_disk(disks["a0"], tmp_path / "early")
    guest.wait_for_step(read_disk("a0", early).last + 250)
    with guest.frozen():
        late = {name: copy_disk(path, tmp_path / f"{name}-late") for name, path in disks.items()}
    assert judge(late).consistent
    # Put one early block back where the sequence has moved on since.
    blocks = _blocks_of_sequence(late["a0"])
    before, after = early.read_bytes(), late["a0"].read_bytes()
    changed = [block for block in blocks if before[block : block + 4096] != after[block : block + 4096]]
    assert len(changed) >= 3  # 64 steps are a block
    mixed = bytearray(after)
    mixed[changed[1] : changed[1] + 4096] = before[changed[1] : changed[1] + 4096]
    late["a0"].write_bytes(mixed)
    verdict = judge(late)
    assert not verdict.consistent
    assert "a0 mixes moments" in verdict.sentence


def _blocks_of_sequence(image: Path) -> list[int]:
    """Where in the image the blocks with records of disk a0 are, in the order of their steps."""
    content = image.read_bytes()
    found = []
    for block in range(0, len(content), 4096):
        fields = content[block + 4032 : block + 4096].split()
        if len(fields) == 3 and fields[1] == b"a0" and fields[0].isdigit():
            found.append((int(fields[0]), block))
    return [block for _, block in sorted(found)]


def test_a_power_cut_is_one_moment_and_the_writer_goes_on(tmp_path: Path) -> None:
    disks = {
        "a0": boot_disk(tmp_path / "a0", "disks=a0,b0,a1,b1 rate=40"),
        "b0": blank_disk(tmp_path / "b0"),
        "a1": blank_disk(tmp_path / "a1"),
        "b1": blank_disk(tmp_path / "b1"),
    }
    with running(disks) as guest:
        guest.wait_for_step(30)
    cut = judge(disks)
    assert cut.consistent, cut.sentence
    assert [reading.disk for reading in cut.readings] == ["a0", "b0", "a1", "b1"]
    with running(disks) as guest:
        guest.wait_for_step(cut.a + 30)
        assert f"next step {min(reading.last for reading in cut.readings) + 1}" in guest.console
    again = judge(disks)
    assert again.consistent, again.sentence
    assert again.a >= cut.a + 30


def test_the_guest_refuses_disks_of_different_moments(tmp_path: Path) -> None:
    disks = {"a0": boot_disk(tmp_path / "a0", "rate=40"), "b0": blank_disk(tmp_path / "b0")}
    with running(disks) as guest:
        guest.wait_for_step(20)
    early = copy_disk(disks["b0"], tmp_path / "early")
    with running(disks) as guest:
        guest.wait_for_step(60)
    with running({**disks, "b0": early}) as guest:
        said = guest.wait_for(r"BROKEN, the disks are of different moments: a0=(\d+) b0=(\d+)")
    assert int(said[1]) >= 60 > int(said[2])


def test_an_idle_guest_leaves_its_disks_alone(tmp_path: Path) -> None:
    disks = {"a0": boot_disk(tmp_path / "a0", "writer=idle"), "b0": blank_disk(tmp_path / "b0")}
    with running(disks) as guest:
        guest.wait_for("coeval-guest: idle")
        with guest.frozen():  # everything that was still to be written is
            verdict = judge(disks)
        before = {name: digest(path) for name, path in disks.items()}
        told = guest.console.count("sequence 8")
        guest.wait(lambda console: console.count("sequence 8") >= told + 4 or None, "four more seconds")
        assert {name: digest(path) for name, path in disks.items()} == before
    assert verdict.consistent
    assert (verdict.a, verdict.b) == (8, 8)


def digest(path: Path) -> str:
    with path.open("rb") as disk:
        return hashlib.file_digest(disk, "sha256").hexdigest()
