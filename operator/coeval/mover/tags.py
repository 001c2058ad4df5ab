"""Tags: what a snapshot says about itself, as plain restic tags `key=value` and two bare words."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from coeval.mover.errors import InterimSnapshot
from coeval.repository.errors import InvalidArgument, SnapshotNotFound
from coeval.repository.repository import Repository
from coeval.repository.snapshot import Snapshot, parse_go_time
from coeval.repository.tree import go_time

MARK = "coeval=v1"
INTERIM = "interim"
PART = "part"
BACKUP = "backup"
LATEST = "latest"
VOLUME = "volume"
AS_OF = "as-of"

_OURS = {"coeval", VOLUME, AS_OF}


def value(snapshot: Snapshot, key: str) -> str | None:
    """Give the value of a tag `key=value`."""
    return next((tag[len(key) + 1 :] for tag in snapshot.tags if tag.startswith(f"{key}=")), None)


def find(repository: Repository, wanted: str) -> Snapshot:
    """Give the snapshot of an id's beginning, or the newest backup for `latest`. Raises SnapshotNotFound.

    A part and an interim copy are no backups, so `latest` never is one of these.
    """
    if wanted != LATEST:
        return repository.snapshot(wanted)
    finished = [s for s in repository.snapshots() if not {PART, INTERIM} & set(s.tags)]
    if not finished:
        raise SnapshotNotFound("the repository holds no finished backup yet")
    return max(finished, key=as_of)


def as_of(snapshot: Snapshot) -> datetime:
    """Give the moment that a snapshot shows; of one that is not ours, when it was made."""
    text = value(snapshot, AS_OF)
    return parse_go_time(text) if text else snapshot.time


def parse_moment(option: str, text: str | None) -> datetime:
    """Parse a moment given as an option; now if there is none. Raises InvalidArgument."""
    if text is None:
        return datetime.now(UTC)
    try:
        return parse_go_time(text)
    except ValueError:
        raise InvalidArgument(f"{option} {text}: not a moment like 2026-01-31T12:00:00Z") from None


def own_tags(
    moment: datetime, state: str | None, volume: str | None, extra: Iterable[str]
) -> tuple[str, ...]:
    """Put a snapshot's tags together. Raises InvalidArgument on extra tags that are ours or malformed."""
    tags = [MARK, f"{AS_OF}={go_time(moment)}"]
    tags += [f"{VOLUME}={volume}"] if volume else []
    tags += [state] if state else []
    for tag in extra:
        check_tag(tag)
        if tag.partition("=")[0] in _OURS:
            raise InvalidArgument(f"--tag {tag}: this key is set by the other options")
        if tag not in tags:
            tags.append(tag)
    return tuple(tags)


def check_tag(tag: str) -> None:
    """Raise InvalidArgument unless the tag is `key=value` and restic could select it."""
    key, equals, text = tag.partition("=")
    if not (key and equals and text) or "," in tag or tag != tag.strip():
        raise InvalidArgument(f"--tag {tag}: give key=value, without commas and surrounding spaces")


def refuse_interim(snapshot: Snapshot, option: str = "--snapshot") -> None:
    """Raise InterimSnapshot for a copy that has not been moved to T1."""
    if INTERIM in snapshot.tags:
        raise InterimSnapshot(
            f"{option} {snapshot.id[:8]} is an interim copy of {value(snapshot, VOLUME)} as of "
            f"{value(snapshot, AS_OF)}; it must be retimed first (`coeval volume retime`)"
        )
