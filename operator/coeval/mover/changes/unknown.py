"""Why a change source cannot say what changed. It is no failure: everything is read and compared instead."""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """For programs, beside a message for people."""

    # Of the SnapshotMetadata service.
    SERVICE_UNAVAILABLE = "ServiceUnavailable"
    ACCESS_DENIED = "AccessDenied"
    SNAPSHOT_UNKNOWN = "SnapshotUnknown"
    TRACKING_OFF = "TrackingOff"
    REQUEST_REFUSED = "RequestRefused"
    ANSWER_INVALID = "AnswerInvalid"
    # Of the base, of what was answered, and of the volume.
    BASE_MISSING = "BaseMissing"
    BASE_DAMAGED = "BaseDamaged"
    SIZE_DIFFERS = "SizeDiffers"
    TOO_FRAGMENTED = "TooFragmented"
    SAMPLE_CONTRADICTS = "SampleContradicts"
    # Of the way through a filesystem's extents.
    NO_EXTENT_MAP = "NoExtentMap"
    FILESYSTEM_UNSUPPORTED = "FilesystemUnsupported"
    DATA_JOURNALED = "DataJournaled"


class ChangesUnknown(Exception):
    """The source cannot say, or may not be trusted. Whoever catches it reads everything, and says why."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
