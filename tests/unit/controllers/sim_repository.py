"""The repository of the simulated world: `coeval` as data-plane.md says, on numbers in place of disks."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise

from coeval.kube.port import Object


@dataclass
class Entry:
    """A snapshot object in the repository."""

    volumes: dict[str, float]
    tags: set[str]
    as_of: str


@dataclass
class Entries:
    """Snapshot objects by id, and the movers that write them."""

    entries: dict[str, Entry] = field(default_factory=dict)
    ids: int = 0

    def run(self, args: list[str], content: float | None, errors: Mapping[str, Object]) -> Object:
        """`coeval` as data-plane.md says, on numbers in place of disks."""
        words = [a for a in args[:2] if not a.startswith("-")]
        verb = words[-1]
        error = errors.get(verb) or errors.get(one(args, "--name") or "")
        if error is not None:
            return {"error": error}
        tags = set(_all(args, "--tag"))
        if verb == "copy":
            state = "interim" if "--interim" in args else "part"
            return self._store({_need(args, "--name"): _known(content)}, tags | {state}, args)
        if verb == "retime":
            base = self.entries[_need(args, "--snapshot")]
            assert "interim" in base.tags
            return self._store({_need(args, "--name"): _known(content)}, tags | {"part"}, args)
        if verb == "commit":
            return self._commit(args, tags)
        if verb == "verify":
            assert _need(args, "--snapshot") in self.entries
            return {"bytes_read": 1}
        assert verb == "forget"
        doomed = _all(args, "--snapshot") or [
            i
            for i, e in self.entries.items()
            if tags <= e.tags and ("--parts-only" not in args or e.tags & {"interim", "part"})
        ]
        for gone in doomed:
            self.entries.pop(gone, None)
        return {"forgotten": doomed}

    def _commit(self, args: list[str], tags: set[str]) -> Object:
        parts = [self.entries[i] for i in _all(args, "--snapshot")]
        assert all("interim" not in p.tags and "part" in p.tags for p in parts), "an interim copy committed"
        assert len({p.as_of for p in parts}) == 1, "moments mixed"
        volumes = {k: v for p in parts for k, v in p.volumes.items()}
        for gone in [i for i, e in self.entries.items() if e.tags & {"interim", "part"}]:
            del self.entries[gone]
        return self._store(volumes, tags, ["--as-of", parts[0].as_of])

    def _store(self, volumes: dict[str, float], tags: set[str], args: list[str]) -> Object:
        self.ids += 1
        snapshot = f"s{self.ids}"
        self.entries[snapshot] = Entry(volumes, tags, _need(args, "--as-of"))
        return {"snapshot": snapshot, "bytes_total": 1 << 30, "bytes_changed": 4096, "chunks_changed": 1}


def _all(args: list[str], option: str) -> list[str]:
    return [b for a, b in pairwise(args) if a == option]


def one(args: list[str], option: str) -> str | None:
    """The value of an option, if it is given."""
    return next(iter(_all(args, option)), None)


def _need(args: list[str], option: str) -> str:
    value = one(args, option)
    assert value is not None, f"{option} is missing in {args}"
    return value


def _known(content: float | None) -> float:
    assert content is not None, "a mover without a source"
    return content
