"""How far a backup is: sums over the movers that it needs."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True)
class Part:
    """One mover's work in bytes; `total` is the volume's size until the mover has said better."""

    done: int
    total: int
    per_second: int | None = None
    finished: bool = False


@dataclass(frozen=True, slots=True)
class Progress:
    """Bytes, bytes per second, and when it will be done."""

    done: int
    total: int
    per_second: int | None
    eta: datetime | None
    percent: int


def total(parts: Iterable[Part], now: datetime) -> Progress:
    """The sum. 100 percent is said only when every part is finished."""
    parts = list(parts)
    everything = sum(max(p.total, p.done) for p in parts)
    done = sum(max(p.total, p.done) if p.finished else p.done for p in parts)
    rate = sum(p.per_second or 0 for p in parts if not p.finished) or None
    if all(p.finished for p in parts):
        return Progress(everything, everything, None, None, 100)
    percent = min(99, done * 100 // everything) if everything else 0
    eta = None
    if rate:
        eta = (now + timedelta(seconds=(everything - done) / rate)).replace(microsecond=0)
    return Progress(done, everything, rate, eta, percent)
