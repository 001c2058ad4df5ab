"""The moment of a backup, as its status tells: the consistency that was proven, and the hold of the guest."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from coeval.api.v1alpha1.common import Model, Text


class Consistency(StrEnum):
    """The least that the user accepts; Auto is the best that can be proven, at least Crash."""

    AUTO = "Auto"
    FILESYSTEM = "Filesystem"
    CRASH = "Crash"
    BEST_EFFORT = "BestEffort"


class Window(Model):
    """The moments that the proof rests on, by the operator's own clock."""

    quiesce_sent: datetime | None = None
    """When the call that holds the guest was sent; its safety timer counts from here."""
    quiesce_returned: datetime | None = None
    """When that call returned: from here on the guest was held."""
    first_snapshot_created: datetime | None = None
    """When the first VolumeSnapshot of T1 was asked for."""
    last_creation_time_seen: datetime | None = None
    """When the last snapshot's creationTime was seen: all of them existed."""
    release_sent: datetime | None = None
    """When the call that lets the guest go was sent first."""
    safety_timer_seconds: int | None = None
    """After so many seconds the guest lets itself go, whatever becomes of us; a pause has no such timer."""


class ConsistencyStatus(Model):
    """What was achieved for T1, by which method, on what evidence."""

    required: Consistency
    """spec.consistency."""
    achieved: Consistency | None = None
    """What the snapshots of T1 show. A backup of them is there only once status.restorable says so."""
    method: Text | None = None
    """How the volumes were held still: GuestFreeze, Pause, Stopped (the VM was) or None."""
    proven: bool = False
    """Whether it is proven that all snapshots show one moment."""
    window: Window | None = None
    evidence: Annotated[dict[str, Text], Field(max_length=64)] | None = None
    """What had to be the same before and after: VMI, node, launcher pod, migration, agent, volumes."""
    reason: Text | None = None
    """Why the last attempt was given up."""


class QuiesceStatus(Model):
    """The freeze or pause: intent first, so that whoever comes next releases it."""

    method: Text | None = None
    """GuestFreeze, Pause, Stopped or None."""
    intent_at: datetime | None = None
    """When it was decided to hold the guest; written before the call."""
    returned_at: datetime | None = None
    """When the call returned with success."""
    release_sent_at: datetime | None = None
    """When the release was sent first."""
    release_seen_at: datetime | None = None
    """When it was certain that the guest runs."""
    attempts: int = 0
    """Number of attempts at a moment, this one included."""
    clear_polls: int = 0
    """Number of looks, apart enough to count, that found the guest running since the release."""
    last_clear_at: datetime | None = None
    """When the last of these was."""
    instance_uid: Annotated[Text | None, Field(alias="instanceUID")] = None
    """uid of the VirtualMachineInstance that is held."""
    answer: Text | None = None
    """What the call answered: Ok, Refused, Ambiguous."""
    last_release_at: datetime | None = None
    """When the release was sent last; after an unclear answer it is repeated."""
    released_at: datetime | None = None
    """When a release call answered success; releaseSeenAt is the proof."""
    found_released: bool = False
    """The release call found the guest running: something else had released it."""
    abandoned: Text | None = None
    """Reason why the snapshots of this attempt are not used."""
    message: Text | None = None
    """What went wrong, for people."""
    refused: Annotated[dict[str, Text] | None, Field(max_length=8)] = None
    """Methods that the guest refused, and why."""
