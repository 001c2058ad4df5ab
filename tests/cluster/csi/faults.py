"""Faults on demand: a JSON file in the store directory says which calls are to go wrong, and how.

    {"CreateSnapshot": {"notReady": true, "volume": "<handle>"}, "NodeStageVolume": {"error": "Internal"}}

Method → behaviour, or a list of behaviours of which the first that matches counts. Keys of a behaviour:
`volume` (only for this source or volume handle), `delaySeconds` (wait before the work is begun), `error` (a
gRPC code in CamelCase) with `message`, `notReady` (snapshots of CreateSnapshot stay not ready while this is
there), `killAt` (the driver ends itself with SIGKILL at this step: `begun`, `frozen`, `copied`, `recorded`),
`lies` ([offset, length]: answers about changed or allocated blocks leave this out) and `cutAfter` (they break
after so many messages).
The file is read at each call, so a test changes it while the driver runs. A file that nobody understands
fails every call: a fault that silently does not happen would make a test pass for nothing.
"""

from __future__ import annotations

import json
import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

FILE: Final = "faults.json"
STEPS: Final = ("begun", "frozen", "copied", "recorded")


class BadFaults(ValueError):
    """The control file is no JSON or has keys that mean nothing."""


@dataclass(frozen=True)
class Fault:
    """What is to happen in one call; the default is nothing."""

    volume: str = ""
    delay_seconds: float = 0.0
    error: str = ""
    message: str = ""
    not_ready: bool = False
    kill_at: str = ""
    lies: tuple[int, int] | None = None
    cut_after: int = 0

    def delay(self) -> None:
        if self.delay_seconds:
            time.sleep(self.delay_seconds)

    def reached(self, step: str) -> None:
        """Called at each step that leaves something on disk or in the kernel."""
        if step not in STEPS:
            raise ValueError(f"no step {step}")
        if step == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)


KEYS: Final = {
    "volume": "volume",
    "delaySeconds": "delay_seconds",
    "error": "error",
    "message": "message",
    "notReady": "not_ready",
    "killAt": "kill_at",
    "lies": "lies",
    "cutAfter": "cut_after",
}


def parse(text: str) -> dict[str, list[Fault]]:
    """Behaviours by method. Raises BadFaults."""
    try:
        document = json.loads(text)
    except ValueError as error:
        raise BadFaults(f"{FILE} is no JSON: {error}") from error
    if not isinstance(document, dict):
        raise BadFaults(f"{FILE}: expected method → behaviour")
    return {
        method: [_fault(method, one) for one in (entry if isinstance(entry, list) else [entry])]
        for method, entry in document.items()
    }


def _fault(method: str, entry: Any) -> Fault:
    if not isinstance(entry, dict) or set(entry) - set(KEYS):
        raise BadFaults(f"{FILE}: {method}: {entry!r} has keys other than {', '.join(KEYS)}")
    fault = Fault(**{KEYS[key]: value for key, value in entry.items()})
    if fault.kill_at and fault.kill_at not in STEPS:
        raise BadFaults(f"{FILE}: {method}: killAt is one of {', '.join(STEPS)}")
    if fault.lies is not None and [type(each) for each in fault.lies] != [int, int]:
        raise BadFaults(f"{FILE}: {method}: lies is [offset, length] in bytes")
    return fault


class Faults:
    """The control file of one store."""

    def __init__(self, store: Path) -> None:
        self._file = store / FILE

    def of(self, method: str, volume: str) -> Fault:
        """What is to happen in this call for this volume handle. Raises BadFaults."""
        try:
            text = self._file.read_text()
        except FileNotFoundError:
            return Fault()
        for fault in parse(text).get(method, []):
            if fault.volume in ("", volume):
                return fault
        return Fault()


def write(store: Path, faults: dict[str, Any]) -> None:
    """Put a control file in place, for tests; the driver never sees half of one."""
    text = json.dumps(faults)
    parse(text)
    new = store / f"{FILE}.new"
    new.write_text(text)
    new.rename(store / FILE)


def clear(store: Path) -> None:
    """No more faults."""
    with suppress(FileNotFoundError):
        (store / FILE).unlink()
