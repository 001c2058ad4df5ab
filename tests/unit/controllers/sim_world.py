"""What the parts of the simulated world share: the time, the API server, the guest, what may go wrong."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from coeval.controllers.ports import Key
from coeval.kube.kinds import VOLUME_SNAPSHOT_CONTENT
from coeval.kube.port import Kind, Object

from tests.unit.controllers.scene import SHOP
from tests.unit.fakeapi import FakeApi

if TYPE_CHECKING:
    from tests.unit.controllers.sim import Sim

START = datetime(2026, 11, 23, 10, 0, 0, tzinfo=UTC)
HOME = "coeval-system"
KEY = Key(SHOP, "b")


@dataclass
class Guest:
    """Writes a growing number to all its disks, but for the time that it is held."""

    frozen_until: datetime | None = None
    paused: bool = False
    window: int = 0
    written: float = 0.0
    agent: bool = True
    held_since: datetime | None = None
    longest_hold: timedelta = timedelta()

    @property
    def held(self) -> bool:
        return self.paused or self.frozen_until is not None


@dataclass
class Backend:
    """A snapshot in a storage system: when it was taken, and what was on the disk."""

    volume: str
    content: float
    window: int | None
    taken: datetime


@dataclass
class Behaviour:
    """What may go wrong, set by a test. Times in seconds."""

    cut_after: float = 0.2
    ready_after: float = 0.5
    never_cut: bool = False
    never_ready: bool = False
    job_takes: float = 4.0
    # A volume or verb → the error document of its mover.
    errors: dict[str, Object] = field(default_factory=dict)
    # Called before the real thing; may raise.
    freeze: Callable[["Sim"], None] | None = None
    pause: Callable[["Sim"], None] | None = None
    # So many thaws do nothing and get no answer.
    lose_thaws: int = 0
    thaw_error: str | None = None
    # A failed pod leaves its Job to try again.
    more_tries: bool = False
    stuck_provisioner: bool = False


class Api(FakeApi):
    """With what the simulated world needs: quick looks, and whether anything has changed."""

    def peek(self, kind: Kind) -> list[Object]:
        """All of a kind, not copied: to be read only."""
        return [o for (k, _, _), o in self._objects.items() if k is kind]

    def version(self) -> int:
        """Grows with every change."""
        return self._version


@dataclass
class World:
    """One of these for all parts. `changes` counts what the API server does not know of."""

    api: Api = field(init=False)
    behaviour: Behaviour = field(default_factory=Behaviour)
    guest: Guest = field(default_factory=Guest)
    backends: dict[str, Backend] = field(default_factory=dict)
    time: datetime = START
    changes: int = 0
    # The backup that is reconciled.
    key: Key = KEY

    def __post_init__(self) -> None:
        self.api = Api(now=self.now, namespaces=(HOME, SHOP))

    def now(self) -> datetime:
        return self.time

    def age(self, obj: Object) -> float:
        """Seconds since the object was made."""
        born = datetime.fromisoformat(obj["metadata"]["creationTimestamp"].replace("Z", "+00:00"))
        return (self.time - born).total_seconds()

    def backend_of(self, twin: str) -> Backend | None:
        """The snapshot behind a twin, whose content has the same name."""
        content = self.api.find(VOLUME_SNAPSHOT_CONTENT, twin)
        return self.backends.get(content["spec"]["source"]["snapshotHandle"]) if content else None
