"""Which change source the options of a command name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from coeval.cli.options import ChangedFrom
from coeval.mover.changes.sources import ChangeSource, Csi, CsiThroughExtents, Given
from coeval.mover.ranges import read_ranges
from coeval.repository.errors import InvalidArgument

if TYPE_CHECKING:
    from coeval.mover.changes.service import Service


@dataclass(frozen=True)
class Asked:
    """The options as they were given."""

    changed: Path | None
    changed_from: ChangedFrom | None
    address: str | None
    ca: Path | None
    token: Path | None
    namespace: str | None
    snapshot: str | None
    base_handle: str | None

    def source(self, path: Path, *, delta: bool) -> ChangeSource | None:
        """Give the change source; None if none is named. `delta`: what is allocated is no answer.

        Raises InvalidArgument, InvalidRanges.
        """
        if self.changed_from is None:
            if stray := next((option for option, value in self._of_service() if value is not None), None):
                raise InvalidArgument(f"{stray} means nothing without --changed-from")
            return Given(read_ranges(self.changed)) if self.changed else None
        if self.changed:
            raise InvalidArgument("--changed and --changed-from exclude each other")
        service, snapshot = self._service()
        if self.changed_from is ChangedFrom.CSI and (self.base_handle is not None or not delta):
            return Csi(service, snapshot, self.base_handle)
        if self.base_handle is None:
            raise InvalidArgument(f"--changed-from {self.changed_from} needs --base-handle")
        return CsiThroughExtents(service, snapshot, self.base_handle, path)

    def _of_service(self) -> list[tuple[str, object]]:
        return [
            ("--metadata-address", self.address),
            ("--metadata-ca", self.ca),
            ("--metadata-token-file", self.token),
            ("--snapshot-namespace", self.namespace),
            ("--snapshot-name", self.snapshot),
            ("--base-handle", self.base_handle),
        ]

    def _service(self) -> tuple[Service, str]:
        from coeval.mover.changes.service import Service  # noqa: PLC0415  (only who asks it pays for gRPC)

        if not (self.address and self.ca and self.token and self.namespace and self.snapshot):
            missing = next(option for option, value in self._of_service() if not value)
            raise InvalidArgument(f"--changed-from {self.changed_from} needs {missing}")
        if self.base_handle == "":
            raise InvalidArgument("--base-handle is empty")
        return Service(self.address, self.ca, self.token, self.namespace), self.snapshot
