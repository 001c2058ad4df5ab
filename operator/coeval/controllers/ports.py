"""What a controller needs from the runtime beside the API server."""

from datetime import datetime
from typing import NamedTuple, Protocol

from coeval.kube.port import Object


class Key(NamedTuple):
    """The object that a reconcile is about; namespace is empty for cluster-scoped kinds."""

    namespace: str
    name: str


class Clock(Protocol):
    """Where the time comes from, so that tests can run in virtual time."""

    def now(self) -> datetime:
        """The time, aware, in UTC."""


class Recorder(Protocol):
    """Writes Events for people; must never fail a reconcile."""

    async def event(self, regarding: Object, *, type: str, reason: str, message: str) -> None:
        """`type` is Normal or Warning; an equal event again is counted, not repeated."""
