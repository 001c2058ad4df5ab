"""Snapshot objects: the single commit point. `restic prune` removes what none of them refers to."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from coeval.repository.documents import MALFORMED, identity, parse_document, texts
from coeval.repository.tree import go_time


@dataclass(frozen=True)
class Snapshot:
    """One entry of the repository. `id` is empty until it is stored.

    `joined` names the snapshots that a commit put together: a field of ours that restic passes over.
    """

    tree: bytes
    time: datetime
    paths: tuple[str, ...]
    tags: tuple[str, ...] = ()
    hostname: str = ""
    username: str = ""
    program_version: str = ""
    joined: tuple[str, ...] = ()
    summary: dict[str, Any] = field(default_factory=dict)
    id: str = ""

    def to_json(self) -> bytes:
        """Write the snapshot as it stands, encrypted, in the store."""
        doc: dict[str, Any] = {"time": go_time(self.time), "tree": self.tree.hex(), "paths": list(self.paths)}
        optional = {
            "hostname": self.hostname,
            "username": self.username,
            "tags": list(self.tags),
            "program_version": self.program_version,
            "summary": self.summary,
            "coeval_joined": list(self.joined),
        }
        doc |= {name: value for name, value in optional.items() if value}
        return json.dumps(doc, separators=(",", ":"), ensure_ascii=False).encode()

    @classmethod
    def from_json(cls, text: bytes, snapshot_id: str) -> Snapshot:
        """Parse a snapshot, ours or restic's. Raises ValueError."""
        try:
            doc = parse_document(text)
            summary = doc.get("summary") or {}
            if not isinstance(summary, dict):
                raise ValueError("summary is no object")
            return cls(
                tree=identity(doc["tree"]),
                time=parse_go_time(doc["time"]),
                paths=texts(doc.get("paths")),
                tags=texts(doc.get("tags")),
                hostname=str(doc.get("hostname", "")),
                username=str(doc.get("username", "")),
                program_version=str(doc.get("program_version", "")),
                joined=texts(doc.get("coeval_joined")),
                summary=summary,
                id=snapshot_id,
            )
        except MALFORMED as error:
            raise ValueError(f"it lacks or misuses {error}") from error


def parse_go_time(text: str) -> datetime:
    """Parse RFC 3339 with up to nine digits of fraction, of which we keep six. Raises ValueError."""
    head, dot, rest = text.partition(".")
    if dot:
        digits = len(rest) - len(rest.lstrip("0123456789"))
        text = f"{head}.{rest[:digits][:6]:0<6}{rest[digits:]}"
    time = datetime.fromisoformat(text)
    if time.tzinfo is None:
        raise ValueError(f"{text} has no time zone")
    try:
        return time.astimezone(UTC)
    except OverflowError:
        raise ValueError(f"{text} is beyond the calendar") from None
