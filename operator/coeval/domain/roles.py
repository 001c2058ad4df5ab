"""Which volumes of a VM are backed up, and who does their I/O."""

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum

from coeval.domain.guest import GuestVolume

CLAIM_SOURCES = frozenset({"persistentVolumeClaim", "dataVolume"})

# Nothing is lost by leaving these out: they come with the VM's definition or are made anew at every start.
MADE_ANEW = {
    "containerDisk": "comes from a container image",
    "emptyDisk": "empty at every start",
    "cloudInitNoCloud": "part of the VM's definition",
    "cloudInitConfigDrive": "part of the VM's definition",
    "configMap": "an object of its own, not a disk",
    "secret": "an object of its own, not a disk",
    "downwardAPI": "made anew at every start",
    "serviceAccount": "made anew at every start",
    "downwardMetrics": "made anew at every start",
    "sysprep": "an object of its own, not a disk",
    "memoryDump": "a dump of memory, not a disk",
    "ephemeral": "writes go to an overlay on the node, which is dropped at every stop",
}


class Role(StrEnum):
    """Who does the volume's I/O: the hypervisor (Image), or the guest itself (Direct)."""

    IMAGE = "Image"
    DIRECT = "Direct"


@dataclass(frozen=True, slots=True)
class Problem:
    """Why something cannot be done: a CamelCase reason, a message with the object and the way out."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A volume that the backup does not hold, and why."""

    volume: str
    why: str

    def __str__(self) -> str:
        return f"{self.volume}: {self.why}"


@dataclass(frozen=True, slots=True)
class Selection:
    """The volumes to back up (each has a claim), those left out, and what stands in the way."""

    chosen: tuple[GuestVolume, ...]
    left_out: tuple[LeftOut, ...]
    problems: tuple[Problem, ...]


def select(
    volumes: Collection[GuestVolume],
    *,
    include: Collection[str] | None = None,
    exclude: Collection[str] | None = None,
    shared_writers_accepted: bool = False,
) -> Selection:
    """What of the VM is backed up. A volume with data of its own is never left out silently.

    `shared_writers_accepted`: no common moment is asked for, so other writers of a disk do it no harm.
    """
    names = {v.name for v in volumes}
    problems = [
        Problem(
            "VolumeNotFound",
            f"spec.volumes names {name}, but the VM has no such volume; it has {_list(names)}",
        )
        for name in sorted({*(include or ()), *(exclude or ())} - names)
    ]
    chosen: list[GuestVolume] = []
    left_out: list[LeftOut] = []
    for volume in volumes:
        if exclude and volume.name in exclude:
            left_out.append(LeftOut(volume.name, "excluded by spec.volumes.exclude"))
        elif include is not None and volume.name not in include:
            left_out.append(LeftOut(volume.name, "not in spec.volumes.include"))
        elif (why := MADE_ANEW.get(volume.source)) is not None:
            if include is not None:
                problems.append(
                    Problem("VolumeNotBackedUp", f"spec.volumes.include names {volume.name}, but it is {why}")
                )
            left_out.append(LeftOut(volume.name, f"{volume.source}: {why}"))
        elif (problem := _refused(volume, shared_writers_accepted)) is not None:
            problems.append(problem)
        else:
            chosen.append(volume)
    if not chosen and not problems:
        problems.append(
            Problem("NoVolumes", "no volume is left to back up; see spec.volumes and the VM's volumes")
        )
    return Selection(tuple(chosen), tuple(left_out), tuple(problems))


def role(volume: GuestVolume, mode: str) -> Role | Problem:
    """The role by the claim's volume mode and the device, never by names."""
    if mode == "Block":
        return Role.DIRECT
    if volume.device == "lun":
        return Problem(
            "LunOnFilesystem",
            f"volume {volume.name} is a lun, but its claim {volume.claim} has volumeMode Filesystem; "
            "the VM cannot start like this: give it a Block claim or make it a disk",
        )
    return Role.IMAGE


def _refused(volume: GuestVolume, shared_writers_accepted: bool) -> Problem | None:
    way_out = f"put {volume.name} into spec.volumes.exclude to back up the rest"
    if volume.device == "filesystem":
        return Problem(
            "VirtiofsVolume",
            f"volume {volume.name} is shared by virtiofs: a directory tree, not a disk; {way_out}",
        )
    if volume.source not in CLAIM_SOURCES or not volume.claim:
        return Problem(
            "VolumeWithoutClaim",
            f"volume {volume.name} ({volume.source}) is on no PersistentVolumeClaim, so no snapshot can be "
            f"taken of it; {way_out}",
        )
    if volume.shareable and not shared_writers_accepted:
        return Problem(
            "ShareableVolume",
            f"volume {volume.name} is shareable: its other writers cannot be held still; {way_out}, "
            "or ask for consistency BestEffort",
        )
    return None


def _list(names: Collection[str]) -> str:
    return ", ".join(sorted(names)) or "none"
