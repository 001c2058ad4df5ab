"""Conditions as kstatus wants them: one per type, and a transition only when the status changes."""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from coeval.api.v1alpha1.common import Condition

MESSAGE_LIMIT = 4000  # far below the schema's bound, so that a listing stays readable


def with_condition(
    conditions: Sequence[Condition] | None,
    type_: str,
    status: Literal["True", "False", "Unknown"],
    reason: str,
    message: str = "",
    *,
    now: datetime,
    generation: int,
) -> list[Condition]:
    """The list with this condition set; the order of first appearance is kept."""
    if len(message) > MESSAGE_LIMIT:
        message = message[: MESSAGE_LIMIT - 2] + " …"
    kept = list(conditions or ())
    at = next((i for i, c in enumerate(kept) if c.type == type_), None)
    old = kept[at] if at is not None else None
    new = Condition(
        type=type_,
        status=status,
        reason=reason,
        message=message,
        last_transition_time=old.last_transition_time
        if old is not None and old.status == status
        else now.replace(microsecond=0),
        observed_generation=generation,
    )
    if at is None:
        kept.append(new)
    else:
        kept[at] = new
    return kept


def find(conditions: Sequence[Condition] | None, type_: str) -> Condition | None:
    """The condition of this type."""
    return next((c for c in conditions or () if c.type == type_), None)
