"""The change sources: each finds out what differs between a base and a volume, or says why it cannot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from coeval.mover.changes.blocks import Blocks
from coeval.mover.changes.extents import MOUNTINFO, ExtentMap, read_extents
from coeval.mover.changes.through_extents import changed_blocks
from coeval.mover.changes.unknown import ChangesUnknown, Reason
from coeval.mover.content import CHUNK_SIZE
from coeval.mover.errors import SourceSizeMismatch
from coeval.mover.ranges import Ranges
from coeval.mover.sources import Source

if TYPE_CHECKING:  # gRPC takes a quarter of a second and 16 MiB: only who asks a service pays
    from coeval.mover.changes.service import Service

MESSAGE_LIMIT: Final = 600
"""Characters of a message that come from elsewhere; the whole result must fit in 4 KiB."""


class SourceName(StrEnum):
    """How it is known what changed; the result and the status record it."""

    CSI = "CSI"
    CSI_THROUGH_EXTENTS = "CSIThroughExtents"
    RANGES = "Ranges"
    COMPARE = "Compare"


@dataclass(frozen=True)
class Fallback:
    """Why everything was compared though another source was asked."""

    reason: Reason
    message: str


@dataclass(frozen=True)
class Changes:
    """What may differ; `reported` is what the source said, in bytes, before rounding to chunks."""

    source: SourceName
    ranges: Ranges
    reported: int | None = None
    fallback: Fallback | None = None


class ChangeSource(Protocol):
    """Finds out what differs."""

    @property
    def from_zeros(self) -> bool:
        """Whether the changes count from a volume of zeros instead of the base."""

    def find(self, source: Source, recorded: Callable[[], ExtentMap]) -> Changes:
        """Say what may differ between the base and `source`.

        `recorded` gives the extent map that lies beside the base. Raises ChangesUnknown, DataPlaneError.
        """


def find_changes(asked: ChangeSource, source: Source, recorded: Callable[[], ExtentMap]) -> Changes:
    """Ask a source; where it cannot say, everything may differ. Raises DataPlaneError."""
    try:
        return asked.find(source, recorded)
    except ChangesUnknown as unknown:
        return compare(source, unknown.reason, str(unknown))


def compare(source: Source, reason: Reason, message: str) -> Changes:
    """Take everything for changed, and say why."""
    if len(message) > MESSAGE_LIMIT:
        message = f"{message[:MESSAGE_LIMIT]} … (shortened)"
    everything = Ranges.everything(source.size)
    return Changes(SourceName.COMPARE, everything, fallback=Fallback(reason, message))


@dataclass(frozen=True)
class Given:
    """Ranges that somebody else found out, for a volume of just their size."""

    ranges: Ranges
    from_zeros = False

    def find(self, source: Source, recorded: Callable[[], ExtentMap]) -> Changes:
        """See ChangeSource. Raises SourceSizeMismatch."""
        if self.ranges.size != source.size:
            raise SourceSizeMismatch(
                f"--changed is for a volume of {self.ranges.size} bytes, but --source has {source.size}"
            )
        return Changes(SourceName.RANGES, self.ranges, sum(length for _, length in self.ranges.ranges))


@dataclass(frozen=True)
class Csi:
    """The driver's word: what differs between the snapshot `base_handle` and the VolumeSnapshot `snapshot`.

    One of the two is the base and the other one `source`, whichever is older. Without a handle: what
    `snapshot` has allocated, which is where it may differ from a volume of zeros.
    """

    service: Service
    snapshot: str
    base_handle: str | None = None

    @property
    def from_zeros(self) -> bool:
        """See ChangeSource."""
        return self.base_handle is None

    def find(self, source: Source, recorded: Callable[[], ExtentMap]) -> Changes:
        """See ChangeSource."""
        if self.base_handle is None:
            answer = self.service.allocated(self.snapshot)
        else:
            answer = self.service.delta(self.base_handle, self.snapshot)
        # Without any message nothing is allocated or nothing differs; the size is then not told.
        if answer.capacity not in (None, source.size):
            raise ChangesUnknown(
                Reason.SIZE_DIFFERS,
                f"snapshot {self.snapshot} has {answer.capacity} bytes, but --source has {source.size}",
            )
        return _changes(SourceName.CSI, source, answer.blocks)


@dataclass(frozen=True)
class CsiThroughExtents:
    """For an image file on a filesystem: the driver's word about the device, seen through the file's extents.

    `path` is the file that `source` reads; `mountinfo` that of the mount namespace in which it lies.
    """

    service: Service
    snapshot: str
    base_handle: str
    path: Path
    mountinfo: Path = MOUNTINFO
    from_zeros = False

    def find(self, source: Source, recorded: Callable[[], ExtentMap]) -> Changes:
        """See ChangeSource. Asks the service last: most reasons why not are found without it."""
        # The volume before the base: what holds of this filesystem held when the base was copied, too, and a
        # missing map would be told as if the next backup had one.
        now = read_extents(self.path, self.mountinfo)
        base = recorded()
        if now.size != source.size:
            raise ChangesUnknown(Reason.SIZE_DIFFERS, f"{self.path} changed its size while it was read")
        if base.filesystem != now.filesystem:
            raise ChangesUnknown(
                Reason.FILESYSTEM_UNSUPPORTED,
                f"the base is on {base.filesystem}, {self.path} on {now.filesystem}",
            )
        answer = self.service.delta(self.base_handle, self.snapshot)
        capacity = answer.capacity or self.service.capacity(self.snapshot)
        if not base.device_size == now.device_size == capacity:
            # A bigger clone may have had its filesystem grown, which moves blocks; a smaller device is not
            # the volume itself (it is encrypted or partitioned), so its offsets are others.
            raise ChangesUnknown(
                Reason.SIZE_DIFFERS,
                f"the base's device has {base.device_size} bytes, that below {self.path} {now.device_size}, "
                f"snapshot {self.snapshot} {capacity}: offsets cannot be compared",
            )
        return _changes(SourceName.CSI_THROUGH_EXTENTS, source, changed_blocks(base, now, answer.blocks))


def _changes(name: SourceName, source: Source, blocks: Blocks) -> Changes:
    return Changes(name, blocks.ranges(source.size, CHUNK_SIZE), blocks.total)
