"""A mover's Job and pods as the decisions see them."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from coeval.domain import naming


@dataclass(frozen=True, slots=True)
class MoverPod:
    """A pod of a mover Job. `result` is its termination message, `waiting` why it does not run."""

    name: str
    uid: str
    created: datetime
    phase: str
    job: str
    result: Mapping[str, Any] | None = None
    ended: str | None = None
    waiting: str | None = None
    progress: Mapping[str, Any] | None = None
    deleting: bool = False


@dataclass(frozen=True, slots=True)
class MoverJob:
    """A mover Job with its pods, oldest first.

    `failed` is the text of its Failed condition, `trouble` the last warning about it
    while no pod of it lives.
    """

    name: str
    uid: str
    created: datetime
    succeeded: bool = False
    failed: str | None = None
    deleting: bool = False
    trouble: str | None = None
    pods: tuple[MoverPod, ...] = ()

    def error(self) -> tuple[str, str] | None:
        """(reason, message) that the last pod which failed put into words itself."""
        for pod in reversed(self.pods):
            said = pod.result.get("error") if pod.result is not None else None
            if isinstance(said, Mapping):
                return (
                    naming.reason(str(said.get("reason", "")), "MoverFailed"),
                    str(said.get("message", "no message"))[:3000],
                )
        return None

    def result(self) -> Mapping[str, Any] | None:
        """What the pod that succeeded said."""
        return next(
            (
                p.result
                for p in reversed(self.pods)
                if p.result is not None and "error" not in p.result and p.phase == "Succeeded"
            ),
            None,
        )

    def story(self) -> str:
        """What is known of a failure that no mover put into words."""
        last = next((p for p in reversed(self.pods) if p.ended or p.waiting), None)
        parts = [self.failed or "failed"]
        if last is not None:
            parts.append(f"pod {last.name}: {last.ended or last.waiting}")
        return "; ".join(parts)
