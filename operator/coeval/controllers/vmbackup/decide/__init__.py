"""What a VMBackup needs next: pure, world and clock in, plan out."""

from datetime import datetime, timedelta

from coeval.controllers.settings import Settings
from coeval.controllers.vmbackup.decide import finish, moment, preflight, transfer
from coeval.controllers.vmbackup.decide.draft import Draft
from coeval.controllers.vmbackup.decide.facts import record
from coeval.controllers.vmbackup.plan import AddFinalizer, Plan
from coeval.controllers.vmbackup.world import Stage, World
from coeval.domain.duration import seconds

__all__ = ["decide", "record"]


def decide(world: World, now: datetime, settings: Settings) -> Plan:
    """The next plan. Asked again with what came of it, it settles: no actions, no change of status."""
    draft = Draft(world, now, settings)
    backup = world.backup
    if backup.stage is Stage.TERMINAL:
        finish.after_the_end(draft)
        return draft.plan()
    if not backup.finalizer:
        # A deletion without our finalizer has nothing of ours to clean up, and cannot be stopped.
        return Plan(backup.status) if backup.deleting else Plan(backup.status, (AddFinalizer(),), 0.0)
    draft.first_touch()
    _end_early(draft)
    # The world was observed for this stage: a look for another one comes first, or what was not looked for
    # would be taken as absent.
    if draft.stage is backup.stage:
        _STEPS[backup.stage](draft)
    moment.watch_release(draft)
    if backup.stage is Stage.FINISH:
        finish.settle(draft)
    draft.derive()
    return draft.plan()


def _end_early(draft: Draft) -> None:
    """What ends a backup at any step. An outcome that is decided stays."""
    if draft.status.outcome is not None:
        return
    backup, status = draft.world.backup, draft.status
    trouble = status.trouble
    if backup.deleting:
        draft.cancel("Deleted", "the VMBackup was deleted before it was complete")
    elif backup.spec.cancel:
        draft.cancel("Cancelled", "cancelled by spec.cancel")
    elif status.started_at is not None and draft.now - status.started_at > timedelta(
        seconds=seconds(backup.spec.deadline)
    ):
        draft.fail(
            "DeadlineExceeded",
            f"not complete {backup.spec.deadline} after its start (spec.deadline), while {draft.doing}; "
            "give it more time or look for what is slow",
        )
    elif trouble is not None and draft.since(trouble.since) > draft.settings.expose_deadline:
        draft.fail(trouble.reason, trouble.message)


_STEPS = {
    Stage.PREFLIGHT: preflight.check,
    Stage.MOMENT: moment.take,
    Stage.TRANSFER: transfer.advance,
    Stage.FINISH: finish.clean_up,
}
