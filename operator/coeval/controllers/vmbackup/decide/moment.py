"""T1: hold the guest still, snapshot every volume, let it go, prove that it was one moment.

An attempt goes: intent in status → the call → its return in status → snapshots → every creation time seen,
in status → release → proof. Whatever goes wrong abandons the attempt, and release comes first then. The
status is written before the actions of the same plan, so an operator that dies anywhere leaves enough to go
on: an intent without a return may mean a held guest, and is released until it cannot be held any more.
"""

import hashlib
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from coeval.api.v1alpha1.moment import Consistency, ConsistencyStatus, QuiesceStatus, Window
from coeval.api.v1alpha1.vmbackup import SnapshotStatus
from coeval.controllers.vmbackup.decide import preflight
from coeval.controllers.vmbackup.decide.draft import Draft
from coeval.controllers.vmbackup.plan import Delete, Moment, Quiesce, Release, TakeSnapshot, Thing
from coeval.controllers.vmbackup.world import World, holds_guest
from coeval.domain import naming
from coeval.domain.consistency import Level, Method, MomentWindow, choose, prove
from coeval.domain.guest import Answer
from coeval.domain.roles import Problem
from coeval.domain.storage import Snapshot

# KubeVirt's own API gives a guest call 10 s, and ours gives up after this.
CALL_TIMEOUT = 15.0


def take(draft: Draft) -> None:
    """The next step of the present attempt, or the next attempt."""
    quiesce = draft.status.quiesce
    if quiesce is None or quiesce.intent_at is None:
        _begin(draft)
    elif quiesce.abandoned is not None:
        _try_again(draft, quiesce)
    elif quiesce.returned_at is None:
        # Whoever wrote the intent did not live to write what came of it.
        _abandon(draft, "QuiesceAmbiguous", "the operator was restarted while it made the guest hold still")
    elif _window(draft).last_creation_time_seen is None:
        _hold(draft, quiesce)
    else:
        _conclude(draft, quiesce)


def watch_release(draft: Draft) -> None:
    """Every way out goes through here, whatever else the backup does meanwhile."""
    quiesce = draft.status.quiesce
    if quiesce is None or quiesce.intent_at is None or not holds_guest(draft.status):
        return
    still_wanted = (
        draft.status.outcome is None
        and quiesce.abandoned is None
        and _window(draft).last_creation_time_seen is None
    )
    if still_wanted:
        return
    instance = draft.world.instance
    if instance is None or instance.uid != quiesce.instance_uid or instance.ended:
        _released(draft, "GuestGone", "the guest that was held is gone")
        return
    certain = quiesce.released_at is not None and quiesce.answer in (Answer.OK, Answer.REFUSED)
    method = Method(quiesce.method or "None")
    if certain and (method is Method.PAUSE or quiesce.answer == Answer.REFUSED):
        # An unpause that succeeded is final; a Paused that shows up later is somebody else's.
        _released(draft, "Released", f"{method} was released")
        return
    held = instance.frozen if method is Method.GUEST_FREEZE else instance.paused
    polls_from = quiesce.released_at if certain else _surely_fired(draft, quiesce)
    polls = _polls(draft, quiesce, held=held, start=polls_from or draft.now)
    if polls >= 2:
        _released(draft, "Released", f"{method} was released, and the guest was seen running twice since")
        return
    due = quiesce.last_release_at is None or (
        draft.since(quiesce.last_release_at)
        >= (draft.settings.clear_poll if certain else draft.settings.release_repeat)
    )
    if due and (not certain or held):
        draft.act(Release(method.value, draft.world.backup.spec.virtual_machine))
    draft.again(min(draft.settings.clear_poll, 2.0) if certain else draft.settings.release_repeat)
    if draft.status.outcome is not None or quiesce.abandoned is not None:
        draft.wait("making sure that the guest is released", draft.settings.release_repeat)


def snapshot_name(draft: Draft, volume: str, moment: Moment) -> str:
    """T1's names hold the attempt: a snapshot of one that failed is never taken for one that counts."""
    attempt = (draft.status.quiesce or QuiesceStatus()).attempts if moment is Moment.T1 else None
    return naming.child(draft.world.backup.uid, moment.value, volume, attempt)


def _begin(draft: Draft) -> None:
    world, status = draft.world, draft.status
    problems = list(preflight.problems_of_guest(world))
    if problems:
        preflight.blocked(draft, problems)
        return
    replaced = _replaced(draft)
    if replaced:
        draft.fail("VolumeReplaced", replaced)
        return
    old = status.quiesce or QuiesceStatus()
    required = world.backup.spec.consistency
    method = choose(Level(required.value), preflight.quietness(world, old.refused))
    if isinstance(method, Problem):
        draft.fail(method.reason, method.message)
        return
    settings, instance = draft.settings, world.instance
    windows = instance is not None and instance.windows
    timer = settings.windows_freeze_timeout if windows else settings.freeze_timeout
    draft.set(
        blocked_since=None,
        quiesce=QuiesceStatus(
            method=method.value,
            intent_at=draft.now,
            attempts=old.attempts + 1,
            refused=old.refused,
            instance_uid=instance.uid if instance is not None else None,
        ),
        consistency=ConsistencyStatus(
            required=required,
            method=method.value,
            window=Window(
                quiesce_sent=draft.now,
                safety_timer_seconds=timer if method is Method.GUEST_FREEZE else None,
            ),
            evidence=evidence(world, method, [v.name for v in draft.volumes]),
        ),
    )
    if method.holds:
        draft.condition("Thawed", "False", method.value, f"the guest is held by {method}")
        draft.act(Quiesce(method.value, world.backup.spec.virtual_machine, timer))
    else:
        # Nothing to call: a stopped guest holds still, and BestEffort does not ask for it.
        draft.quiesce(returned_at=draft.now, answer=Answer.OK.value)
        _set_window(draft, quiesce_returned=draft.now)
        draft.condition("Thawed", "True", method.value, "the guest is not held for this backup")
    draft.again(0.0)


def _hold(draft: Draft, quiesce: QuiesceStatus) -> None:
    """Inside the window: ask for all snapshots at once, then look until every creation time is there."""
    world, method = draft.world, Method(quiesce.method or "None")
    if method.holds and (world.instance is None or world.instance.uid != quiesce.instance_uid):
        _abandon(draft, "GuestChanged", "the guest went away while its snapshots were taken")
        return
    names = {v.name: snapshot_name(draft, v.name, Moment.T1) for v in draft.volumes}
    snapshots = {name: world.snapshots.get(wanted) for name, wanted in names.items()}
    late = {v: s for v, s in snapshots.items() if s is None or s.creation_time is None}
    if draft.now >= _window_end(draft, quiesce, method) or _hopeless(draft, quiesce, method, late):
        _abandon(draft, "SnapshotNotReady", _not_ready(late, draft.since(quiesce.returned_at or draft.now)))
        return
    trouble = draft.status.trouble
    if trouble is not None and (method.holds or draft.since(trouble.since) > draft.settings.preflight_grace):
        # A refusal is not worth holding the guest for; without one it may heal for a while.
        _abandon(draft, trouble.reason, trouble.message)
        return
    missing = [v for v in draft.volumes if snapshots[v.name] is None]
    if missing:
        if _window(draft).first_snapshot_created is None:
            _set_window(draft, first_snapshot_created=draft.now)
        draft.act(
            *(
                TakeSnapshot(names[v.name], v.name, v.claim, v.snapshot_class or "", Moment.T1)
                for v in missing
            )
        )
        draft.again(draft.settings.window_poll)
        return
    found = {v: s for v, s in snapshots.items() if s is not None}
    if any(s.creation_time is None or s.deleting for s in found.values()):
        draft.again(draft.settings.window_poll)
        return
    _set_window(draft, last_creation_time_seen=draft.now)
    for volume, snapshot in found.items():
        draft.volume(
            volume,
            t1=SnapshotStatus(snapshot=snapshot.name, uid=snapshot.uid, creation_time=snapshot.creation_time),
        )
    draft.again(0.0)


def _conclude(draft: Draft, quiesce: QuiesceStatus) -> None:
    """After the release was sent: is it proven that these snapshots show one moment?"""
    method = Method(quiesce.method or "None")
    window = _window(draft)
    if method.holds and quiesce.release_sent_at is None:
        return  # watch_release sends it in this same plan
    if method is Method.PAUSE and quiesce.released_at is None:
        # Only the answer tells whether it was still ours to end: "not paused" means that somebody else did.
        if quiesce.release_seen_at is not None:
            _abandon(draft, "ReleaseAmbiguous", "it is not known who let the guest go on, or when")
        return
    consistency = draft.status.consistency or ConsistencyStatus(required=Consistency.AUTO)
    for volume in draft.volumes:
        snapshot = draft.world.snapshots.get(volume.t1.snapshot or "") if volume.t1 else None
        if snapshot is None or volume.t1 is None or snapshot.uid != volume.t1.uid:
            _abandon(
                draft, "SnapshotLost", f"the snapshot of volume {volume.name} was deleted by somebody else"
            )
            return
    if method is not Method.NONE:
        timer = window.safety_timer_seconds
        broken = prove(
            method,
            MomentWindow(
                quiesce_sent=window.quiesce_sent or draft.now,
                quiesce_returned=window.quiesce_returned,
                creation_times_seen=window.last_creation_time_seen,
                release_sent=window.release_sent,
                timer=timer,
                margin=draft.settings.margin(timer or 0),
            ),
            consistency.evidence or {},
            evidence(draft.world, method, [v.name for v in draft.volumes]),
            found_released=quiesce.found_released,
        )
        if broken is not None:
            _abandon(draft, broken.reason, broken.message)
            return
    _accept(draft, method, quiesce)


def _accept(draft: Draft, method: Method, quiesce: QuiesceStatus) -> None:
    # While the guest was held its disks did not change, so the moment may be called by any time of the
    # window; this is the first at which the hold was certain. Whole seconds, as API times are.
    moment = (quiesce.returned_at or draft.now).replace(microsecond=0)
    proven = method is not Method.NONE
    consistency = draft.status.consistency or ConsistencyStatus(required=Consistency.AUTO)
    draft.set(
        point_in_time=moment,
        consistency=consistency.model_copy(
            update={"achieved": Consistency(method.level.value), "proven": proven, "reason": None}
        ),
    )
    if proven:
        text = f"every disk is as of {moment:%Y-%m-%dT%H:%M:%SZ}, {method.level}-consistent by {method}"
        draft.condition("PointInTime", "True", method.value, text)
        draft.note("Normal", "PointInTimeTaken", text)
    else:
        text = "the snapshots were taken one after another; no common moment is proven"
        draft.condition("PointInTime", "False", "BestEffort", text)
        draft.note("Normal", "SnapshotsTaken", text)
    draft.again(0.0)


def _abandon(draft: Draft, reason: str, message: str) -> None:
    draft.quiesce(abandoned=reason, message=message[:4000])
    consistency = draft.status.consistency
    if consistency is not None:
        draft.set(consistency=consistency.model_copy(update={"reason": f"{reason}: {message}"[:4000]}))
    draft.again(0.0)


def _try_again(draft: Draft, quiesce: QuiesceStatus) -> None:
    """The guest first, then the snapshots of this attempt, then the next attempt or the end."""
    if holds_guest(draft.status):
        return  # watch_release is at it
    leftover = [s for s in draft.world.snapshots.values() if not s.deleting]
    draft.act(*(Delete(Thing.SNAPSHOT, s.name, s.uid, draft.world.backup.namespace) for s in leftover))
    draft.set(volumes=[v.model_copy(update={"t1": None}) for v in draft.volumes])
    reason, message = quiesce.abandoned or "QuiesceFailed", quiesce.message or ""
    refused = quiesce.method in (quiesce.refused or {})
    if not refused and quiesce.attempts >= draft.settings.moment_attempts:
        draft.fail(
            reason, f"no moment could be proven in {quiesce.attempts} attempts; the last one: {message}"
        )
        return
    draft.note("Warning", reason, f"{message}; trying again")
    # A refusal costs no attempt: it leaves one method less, and another is tried.
    draft.set(
        quiesce=QuiesceStatus(
            attempts=quiesce.attempts - 1 if refused else quiesce.attempts, refused=quiesce.refused
        )
    )
    draft.again(0.0 if refused else 1.0)


def _released(draft: Draft, reason: str, message: str) -> None:
    draft.quiesce(release_seen_at=draft.now)
    draft.condition("Thawed", "True", reason, message)
    draft.again(0.0)


def _polls(draft: Draft, quiesce: QuiesceStatus, *, held: bool, start: datetime) -> int:
    """Count looks that found the guest running, one per period in which KubeVirt asks it."""
    if draft.now < start:
        return 0
    if held:
        if quiesce.clear_polls:
            draft.quiesce(clear_polls=0, last_clear_at=None)
        return 0
    if quiesce.last_clear_at is not None and draft.since(quiesce.last_clear_at) < draft.settings.clear_poll:
        return quiesce.clear_polls
    draft.quiesce(clear_polls=quiesce.clear_polls + 1, last_clear_at=draft.now)
    return quiesce.clear_polls + 1


def _surely_fired(draft: Draft, quiesce: QuiesceStatus) -> datetime:
    """When a call that was sent at the intent can have no effect any more."""
    timer = _window(draft).safety_timer_seconds
    lasts = CALL_TIMEOUT if timer is None else float(timer)
    return (quiesce.intent_at or draft.now) + timedelta(seconds=lasts + draft.settings.late_answer)


def _hopeless(
    draft: Draft, quiesce: QuiesceStatus, method: Method, late: Mapping[str, Snapshot | None]
) -> bool:
    """Every snapshot that is still missing met an error, for longer than the guest should be held for it."""
    held = draft.since(quiesce.returned_at or draft.now)
    refused = bool(late) and all(s is not None and s.error is not None for s in late.values())
    return method.holds and refused and held > draft.settings.error_patience


def _window_end(draft: Draft, quiesce: QuiesceStatus, method: Method) -> datetime:
    settings, sent = draft.settings, quiesce.intent_at or draft.now
    if method is Method.GUEST_FREEZE:
        timer = _window(draft).safety_timer_seconds or settings.freeze_timeout
        return sent + timedelta(seconds=timer - settings.margin(timer))
    if method is Method.PAUSE:
        return sent + timedelta(seconds=settings.pause_timeout)
    return (quiesce.returned_at or sent) + timedelta(seconds=settings.snapshot_deadline)


def evidence(world: World, method: Method, volumes: Iterable[str]) -> dict[str, str]:
    """What must be the same before and after. A small map of text: it goes to status for people to read."""
    machine, instance = world.machine, world.instance
    facts = {"machine": machine.uid if machine else "none"}
    if machine is not None and machine.locks:
        facts["locks"] = ", ".join(machine.locks)
    if instance is None or instance.ended:
        facts["instance"] = "none"
        facts["machineGeneration"] = str(machine.generation) if machine else "none"
    else:
        facts["instance"] = instance.uid
        facts["node"] = instance.node
        facts["launcherPods"] = ", ".join(instance.pods)
        facts["migration"] = f"{instance.migration or 'none'}{' (running)' if instance.migrating else ''}"
        if method is Method.GUEST_FREEZE:
            facts["agentConnectedSince"] = instance.agent_since or "not connected"
    facts["volumes"] = _volumes_digest(world, set(volumes))
    return facts


def _volumes_digest(world: World, names: set[str]) -> str:
    present = preflight.current_volumes(world.machine, world.instance) if world.machine else ()
    lines = []
    for volume in sorted(present, key=lambda v: v.name):
        claim = world.claims.get(volume.claim or "") if volume.name in names else None
        lines.append(f"{volume}|{claim.uid if claim else ''}|{claim.volume if claim else ''}")
    return f"{len(lines)} sha256:{hashlib.sha256(chr(10).join(lines).encode()).hexdigest()[:16]}"


def _replaced(draft: Draft) -> str | None:
    """A volume that is not any more what the preflight found."""
    machine = draft.world.machine
    present = preflight.current_volumes(machine, draft.world.instance) if machine else ()
    claims = {v.name: v.claim for v in present}
    for volume in draft.volumes:
        claim = draft.world.claims.get(volume.claim)
        same = claim is not None and (claim.uid, claim.volume) == (
            volume.claim_uid,
            volume.persistent_volume,
        )
        if claims.get(volume.name) != volume.claim or not same:
            return (
                f"volume {volume.name} is not on the same claim and PersistentVolume any more as when the "
                "backup began; start a new backup"
            )
    return None


def _not_ready(late: dict[str, Snapshot | None], waited: float) -> str:
    details = "; ".join(
        f"volume {volume}: {(snapshot.error if snapshot else None) or 'no creationTime, no error either'}"
        for volume, snapshot in sorted(late.items())
    )
    return (
        f"not every snapshot existed after {waited:.0f} s ({details}); see the CSI driver and its "
        "snapshot sidecar"
    )


def _window(draft: Draft) -> Window:
    consistency = draft.status.consistency
    return (consistency.window if consistency else None) or Window()


def _set_window(draft: Draft, **fields: datetime) -> None:
    consistency = draft.status.consistency or ConsistencyStatus(required=Consistency.AUTO)
    window = _window(draft).model_copy(update=fields)
    draft.set(consistency=consistency.model_copy(update={"window": window}))
