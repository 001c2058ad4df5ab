"""Failures of moving data, beside those of the repository."""

from __future__ import annotations

from coeval.repository.errors import DataPlaneError


class SourceUnreadable(DataPlaneError):
    """The source cannot be opened or read; the message names it and the offset."""

    reason = "SourceUnreadable"


class SourceSizeMismatch(DataPlaneError):
    """The source has another size than we were told, or changed its size while we read."""

    reason = "SourceSizeMismatch"


class InvalidRanges(DataPlaneError):
    """The changed ranges are not what they must be; the message names the entry."""

    reason = "InvalidRanges"
    exit_code = 2


class InterimSnapshot(DataPlaneError):
    """An interim copy shows no moment that anybody asked for; nothing but retime and verify may use it."""

    reason = "InterimSnapshot"


class DifferentMoments(DataPlaneError):
    """The parts of a commit are as of different moments, or of different backups."""

    reason = "DifferentMoments"


class VolumeNotFound(DataPlaneError):
    """The snapshot has no volume of this name."""

    reason = "VolumeNotFound"


class TargetUnusable(DataPlaneError):
    """The target is too small, in use, not empty or not writable. Said before its first byte is touched."""

    reason = "TargetUnusable"


class Interrupted(DataPlaneError):
    """A signal asked us to end. Nothing was committed."""

    reason = "Interrupted"
