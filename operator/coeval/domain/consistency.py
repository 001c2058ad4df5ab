"""How T1 becomes one moment, and the proof that it was one (architecture.md, "Consistency of T1")."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from coeval.domain.roles import Problem


class Level(StrEnum):
    """What a moment is worth. Auto is only asked for, never achieved."""

    AUTO = "Auto"
    FILESYSTEM = "Filesystem"
    CRASH = "Crash"
    BEST_EFFORT = "BestEffort"


class Method(StrEnum):
    """How the volumes are held still. A group snapshot will stand between freeze and pause."""

    GUEST_FREEZE = "GuestFreeze"
    PAUSE = "Pause"
    STOPPED = "Stopped"
    NONE = "None"

    @property
    def level(self) -> Level:
        """What is achieved when it works."""
        return _LEVELS[self]

    @property
    def holds(self) -> bool:
        """The guest is held and must be released."""
        return self in (Method.GUEST_FREEZE, Method.PAUSE)


_LEVELS = {
    Method.GUEST_FREEZE: Level.FILESYSTEM,
    Method.PAUSE: Level.CRASH,
    Method.STOPPED: Level.CRASH,
    Method.NONE: Level.BEST_EFFORT,
}


@dataclass(frozen=True, slots=True)
class Quietness:
    """What is known of the guest when a method is chosen. `refused`: methods that said no, and why."""

    running: bool
    agent_connected: bool = False
    freezable: bool | None = None
    refused: Mapping[str, str] | None = None


def choose(required: Level, guest: Quietness) -> Method | Problem:
    """The best method left for what the user accepts. Never lowers it: what cannot be met is a Problem."""
    if required is Level.BEST_EFFORT:
        return Method.NONE
    return _of_running(required, guest) if guest.running else _of_stopped(required)


def _of_stopped(required: Level) -> Method | Problem:
    if required is Level.FILESYSTEM:
        return Problem(
            "FilesystemConsistencyUnproven",
            "the VM is stopped, and nothing proves that its filesystems were unmounted cleanly; "
            "start it, or ask for consistency Crash",
        )
    return Method.STOPPED


def _of_running(required: Level, guest: Quietness) -> Method | Problem:
    refused = guest.refused or {}
    why_no_freeze = _why_no_freeze(guest, refused)
    if why_no_freeze is None:
        return Method.GUEST_FREEZE
    if required is Level.FILESYSTEM:
        return Problem(
            "FreezeRefused" if Method.GUEST_FREEZE in refused else "GuestAgentUnavailable",
            f"consistency Filesystem needs the guest agent's freeze, but {why_no_freeze}; "
            "repair the guest agent, or ask for consistency Crash",
        )
    if Method.PAUSE not in refused:
        return Method.PAUSE
    return Problem(
        "QuiesceRefused",
        f"the guest could neither be frozen ({why_no_freeze}) nor paused ({refused[Method.PAUSE]}); "
        "repair one of the two, stop the VM, or ask for consistency BestEffort",
    )


def _why_no_freeze(guest: Quietness, refused: Mapping[str, str]) -> str | None:
    if Method.GUEST_FREEZE in refused:
        return f"it was refused: {refused[Method.GUEST_FREEZE]}"
    if not guest.agent_connected:
        return "no guest agent is connected"
    if guest.freezable is False:
        return "the guest agent has its freeze or thaw command disabled"
    return None


@dataclass(frozen=True, slots=True)
class MomentWindow:
    """The moments of a window by the operator's own clock; `timer` is the guest's safety timer in seconds."""

    quiesce_sent: datetime
    quiesce_returned: datetime | None
    creation_times_seen: datetime | None
    release_sent: datetime | None
    timer: float | None
    margin: float


def prove(
    method: Method,
    window: MomentWindow,
    before: Mapping[str, str],
    after: Mapping[str, str],
    *,
    found_released: bool = False,
) -> Problem | None:
    """None where the snapshots of a window show one moment, else what broke it.

    That no snapshot was created before the quiesce call returned needs no time stamp: snapshots are
    named by the attempt and only asked for once the return is in status. `found_released`: the release
    call found the guest already running, so somebody or something else had ended the window.
    """
    if window.quiesce_returned is None:
        return Problem("QuiesceAmbiguous", f"it is not known whether {method} took effect")
    if window.creation_times_seen is None:
        return Problem("SnapshotNotReady", "not every snapshot was seen to exist inside the window")
    if method.holds and found_released:
        return Problem("WindowBroken", "the guest was released by something else before we released it")
    if method.holds and (broken := _held_too_short(window, window.creation_times_seen)) is not None:
        return broken
    changed = sorted(k for k in {*before, *after} if before.get(k) != after.get(k))
    if changed:
        what = "; ".join(f"{k} was {before.get(k, 'absent')}, is {after.get(k, 'absent')}" for k in changed)
        return Problem("GuestChanged", f"the guest changed while its snapshots were taken: {what}")
    return None


def _held_too_short(window: MomentWindow, seen: datetime) -> Problem | None:
    if window.release_sent is None or window.release_sent < seen:
        return Problem("WindowBroken", "the guest was released before every snapshot was seen to exist")
    if window.timer is None:
        return None
    if window.release_sent > window.quiesce_sent + timedelta(seconds=window.timer - window.margin):
        held = (window.release_sent - window.quiesce_sent).total_seconds()
        return Problem(
            "WindowExceeded",
            f"the guest was held for {held:.1f} s; its safety timer of {window.timer:g} s may have "
            "released it before every snapshot existed",
        )
    return None
