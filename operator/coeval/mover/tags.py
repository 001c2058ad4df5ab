"""Tags: what a snapshot says about itself, as plain restic tags `key=value` and two bare words."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from coeval.mover.errors import InterimSnapshot
from coeval.repository.errors import InvalidArgument, RepositoryDamaged, SnapshotNotFound
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

NAMED = 8
"""Names of a sort that a message has, so that it fits in a termination message."""

_OURS = {"coeval", VOLUME, AS_OF}


def value(snapshot: Snapshot, key: str) -> str | None:
    """Give the value of a tag `key=value`."""
    return next((tag[len(key) + 1 :] for tag in snapshot.tags if tag.startswith(f"{key}=")), None)


def find(repository: Repository, wanted: str) -> Snapshot:
    """Give the snapshot of an id's beginning, or the newest backup for `latest`.

    A part and an interim copy are no backups, so `latest` never is one of these. A snapshot that cannot be
    read may be the newest: nobody is given an older one for it unasked. An id needs none of the others.
    Raises SnapshotNotFound, RepositoryDamaged.
    """
    if wanted != LATEST:
        return repository.snapshot(wanted)
    damaged: list[str] = []
    finished = [s for s in repository.snapshots(damaged) if not {PART, INTERIM} & set(s.tags)]
    if damaged:
        there = some([label(s) for s in sorted(finished, key=as_of, reverse=True)])
        raise RepositoryDamaged(
            f"which backup is the latest cannot be told, for it may be one that cannot be read: "
            f"{some(damaged)}; give the id of one that can be read: {there or 'there is none'}"
        )
    if not finished:
        raise SnapshotNotFound("the repository holds no finished backup yet")
    return max(finished, key=as_of)


def as_of(snapshot: Snapshot) -> datetime:
    """Give the moment that a snapshot shows; of one that is not ours, when it was made."""
    text = value(snapshot, AS_OF)
    return parse_go_time(text) if text else snapshot.time


def label(snapshot: Snapshot) -> str:
    """Give what people tell a snapshot by: enough of its id, its moment and its backup."""
    backup = value(snapshot, BACKUP)
    moment = f"as of {value(snapshot, AS_OF) or go_time(snapshot.time)}"
    return f"{snapshot.id[:8]} ({moment}{f', {backup}' if backup else ''})"


def some(names: list[str]) -> str:
    """Give the first names, and the number of those left out."""
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")


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
