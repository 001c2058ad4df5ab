"""Which volumes are backed up, and as what."""

import pytest
from coeval.domain.guest import GuestVolume
from coeval.domain.roles import MADE_ANEW, Problem, Role, role, select

ROOT = GuestVolume("root", "persistentVolumeClaim", "db-root")
DATA = GuestVolume("data", "dataVolume", "db-data", device="lun")
CLOUD = GuestVolume("cloud", "cloudInitNoCloud")


@pytest.mark.parametrize(
    ("mode", "device", "expected"),
    [
        ("Filesystem", "disk", Role.IMAGE),
        ("Filesystem", "cdrom", Role.IMAGE),
        ("Block", "disk", Role.DIRECT),
        ("Block", "lun", Role.DIRECT),
        ("Block", "cdrom", Role.DIRECT),
    ],
)
def test_role(mode: str, device: str, expected: Role) -> None:
    assert role(GuestVolume("v", "persistentVolumeClaim", "c", device), mode) is expected


def test_a_lun_on_a_file_system_is_invalid() -> None:
    problem = role(GuestVolume("v", "persistentVolumeClaim", "c", "lun"), "Filesystem")
    assert isinstance(problem, Problem)
    assert problem.reason == "LunOnFilesystem"
    assert "c" in problem.message


def test_all_with_a_claim_are_chosen_and_the_rest_is_named() -> None:
    found = select([ROOT, DATA, CLOUD])
    assert found.chosen == (ROOT, DATA)
    assert [str(v) for v in found.left_out] == ["cloud: cloudInitNoCloud: part of the VM's definition"]
    assert found.problems == ()


@pytest.mark.parametrize("source", sorted(MADE_ANEW))
def test_what_is_made_anew_is_left_out_with_a_reason(source: str) -> None:
    found = select(
        [ROOT, GuestVolume("x", source, "claim" if source in ("ephemeral", "memoryDump") else None)]
    )
    assert found.chosen == (ROOT,)
    assert found.left_out[0].why
    assert found.problems == ()


@pytest.mark.parametrize(
    ("volume", "reason"),
    [
        (GuestVolume("x", "hostDisk"), "VolumeWithoutClaim"),
        (GuestVolume("x", "somethingNew"), "VolumeWithoutClaim"),
        (GuestVolume("x", "persistentVolumeClaim", "c", "filesystem"), "VirtiofsVolume"),
        (GuestVolume("x", "persistentVolumeClaim", "c", shareable=True), "ShareableVolume"),
    ],
)
def test_data_is_never_left_out_silently(volume: GuestVolume, reason: str) -> None:
    found = select([ROOT, volume])
    assert [p.reason for p in found.problems] == [reason]
    assert "spec.volumes.exclude" in found.problems[0].message
    excluded = select([ROOT, volume], exclude=["x"])
    assert excluded.problems == ()
    assert [v.volume for v in excluded.left_out] == ["x"]


def test_a_shared_disk_is_accepted_where_no_moment_is_asked_for() -> None:
    shared = GuestVolume("x", "persistentVolumeClaim", "c", shareable=True)
    assert select([shared], shared_writers_accepted=True).chosen == (shared,)


def test_include_takes_only_these() -> None:
    found = select([ROOT, DATA, CLOUD], include=["data"])
    assert found.chosen == (DATA,)
    assert {v.volume for v in found.left_out} == {"root", "cloud"}


@pytest.mark.parametrize("option", ["include", "exclude"])
def test_unknown_names_are_refused(option: str) -> None:
    found = select(
        [ROOT, DATA],
        include=["rot"] if option == "include" else None,
        exclude=["rot"] if option == "exclude" else None,
    )
    assert "VolumeNotFound" in [p.reason for p in found.problems]
    assert "data, root" in found.problems[0].message


def test_including_what_cannot_be_backed_up_is_refused() -> None:
    assert [p.reason for p in select([ROOT, CLOUD], include=["root", "cloud"]).problems] == [
        "VolumeNotBackedUp"
    ]


def test_nothing_left_is_refused() -> None:
    assert [p.reason for p in select([ROOT], exclude=["root"]).problems] == ["NoVolumes"]
