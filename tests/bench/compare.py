"""The run: every tool does the same work on the same volume, one after another, in a changing order."""

from __future__ import annotations

import filecmp
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.bench.images import Volume, Words, volume_in
from tests.bench.measure import Command, contents, drop_caches, make_durable, run, warm
from tests.bench.tools import PLAIN, TOOLS, Coeval, Missing, Tool

FULL, UNCHANGED, CHANGED, RETIME, RESTORE = "full", "unchanged", "1 % changed", "retime", "restore"
KNOWN = ", ranges known"


@dataclass(frozen=True)
class Settings:
    """What to run. Sizes in bytes by kind of volume; `caches` is `warm` or `drop`."""

    sizes: dict[str, int]
    rounds: int
    caches: str
    tools: tuple[str, ...]
    folder: Path


@dataclass(frozen=True)
class Record:
    """One measured run of one tool. Bytes and seconds; stored and objects are what the repository grew by."""

    volume: str
    case: str
    tool: str
    round: int
    seconds: float
    cpu_seconds: float
    peak_rss: int = 0
    bytes_read: int = 0
    bytes_stored: int = 0
    objects: int = 0


def compare(settings: Settings, say: Callable[[str], None]) -> Iterator[dict[str, object]]:
    """Run everything; after each round give the document that the report is made from."""
    versions, missing = _versions(settings.tools)
    records: list[Record] = []
    volumes = [volume_in(settings.folder / "images", kind, size) for kind, size in settings.sizes.items()]
    for number in range(settings.rounds):
        for volume in volumes:
            say(f"round {number + 1} of {settings.rounds}: {volume.name}")
            records += _bound(volume, number)
            with _tools(list(versions), settings.folder) as tools:
                records += _Round(settings, volume, number, tools).run()
        yield {
            "sizes": settings.sizes,
            "rounds": number + 1,
            "caches": settings.caches,
            "cores": len(os.sched_getaffinity(0)),
            "versions": versions,
            "missing": missing,
            "records": [asdict(record) for record in records],
        }


def _versions(wanted: Sequence[str]) -> tuple[dict[str, str], dict[str, str]]:
    versions: dict[str, str] = {}
    missing: dict[str, str] = {}
    for name in wanted:
        try:
            versions[name] = TOOLS[name].version()
        except Missing as why:
            missing[name] = str(why)
    return versions, missing


@contextmanager
def _tools(names: list[str], folder: Path) -> Iterator[list[Tool]]:
    with tempfile.TemporaryDirectory(dir=folder, prefix="run-") as scratch:
        tools = [TOOLS[name](Path(scratch) / name) for name in names]
        for tool in tools:
            for command in tool.setup():
                run(command)
        yield tools


def _bound(volume: Volume, number: int) -> list[Record]:
    _, output = run(Command([sys.executable, "-m", "tests.bench.bound", volume.image("base")]))
    doc = json.loads(output)
    return [
        Record(volume.name, case, f"bound: {bound}", number, **doc[bound])
        for case, bound in ((FULL, "pipeline"), (UNCHANGED, "hash"))
        if doc[bound]["seconds"]  # a volume of zeros gives no work
    ]


@dataclass
class _Round:
    """All cases on one volume, with fresh repositories."""

    settings: Settings
    volume: Volume
    number: int
    tools: list[Tool]

    def run(self) -> Iterator[Record]:
        volume = self.volume
        yield from self._case(FULL, "base", lambda tool: tool.backup(volume, "base"))
        yield from self._case(UNCHANGED, "base", lambda tool: tool.backup(volume, "base"))
        yield from self._case(UNCHANGED + KNOWN, "base", lambda tool: tool.backup_ranges(volume, "base"))
        yield from self._case(CHANGED, "later", lambda tool: tool.backup(volume, "later"))
        yield from self._case(CHANGED + KNOWN, "last", lambda tool: tool.backup_ranges(volume, "last"))
        for tool in self.tools:
            if isinstance(tool, Coeval):
                yield from self._retime(tool)
        yield from self._restore()

    def _order(self) -> list[Tool]:
        # Nobody always runs first, or right after the same other.
        at = self.number % len(self.tools)
        ordered = self.tools[at:] + self.tools[:at]
        return ordered[::-1] if self.number % 2 else ordered

    def _case(self, case: str, moment: str, call: Callable[[Tool], Command | None]) -> Iterator[Record]:
        for tool in self._order():
            if tool.name in PLAIN and case != FULL:
                continue  # a plain copy is the same work whatever changed
            command = call(tool)
            if command is not None:
                record, output = self._measured(case, tool, command, self.volume.image(moment))
                # The first backup of the first moment is the one to restore and to count ranges from.
                if moment not in tool.snapshots or case != UNCHANGED:
                    tool.note(moment, output)
                yield record

    def _retime(self, tool: Coeval) -> Iterator[Record]:
        """Retime in a repository that knows nothing but the interim copy, as at a first backup."""
        kept = tool.repository
        try:
            for known in (False, True):
                tool.repository = tool.folder / f"retime-{known}"
                for command in tool.setup():
                    run(command)
                tool.note("interim", run(tool.interim(self.volume))[1])
                case = RETIME + (KNOWN if known else "")
                yield self._measured(
                    case, tool, tool.retime(self.volume, known=known), self.volume.image("base")
                )[0]
        finally:
            tool.repository = kept

    def _restore(self) -> Iterator[Record]:
        for tool in self.tools:
            if isinstance(tool, Coeval):
                words: Words = [
                    "--repository",
                    f"file://{tool.repository}",
                    "--password-file",
                    tool.password_file,
                ]
                commit: Words = [sys.executable, "-m", "coeval.cli.main", "commit", *words]
                tool.note("base", run(Command([*commit, "--snapshot", tool.snapshots["base"]]))[1])
        for tool in self._order():
            target = tool.folder / "restored"
            target.mkdir()
            command = tool.restore(self.volume, "base", target)
            yield self._measured(RESTORE, tool, command, tool.repository)[0]
            (restored,) = target.rglob("disk.img")
            if not filecmp.cmp(restored, self.volume.image("base"), shallow=False):
                raise AssertionError(f"{tool.name} restored other bytes than it backed up")
            shutil.rmtree(target)

    def _measured(self, case: str, tool: Tool, command: Command, read: Path) -> tuple[Record, bytes]:
        self._caches(read)
        stored, objects = contents(tool.repository)
        usage, output = run(command)
        stored_after, objects_after = contents(tool.repository)
        record = Record(
            *(self.volume.name, case, tool.name, self.number),
            *(usage.seconds, usage.cpu_seconds, usage.peak_rss, usage.bytes_read),
            *(stored_after - stored, objects_after - objects),
        )
        return record, output

    def _caches(self, read: Path) -> None:
        """Bring what is read into the cache, or empty it; leave nobody the writes of the one before."""
        for tool in self.tools:
            make_durable(tool.folder)
        if self.settings.caches == "drop":
            drop_caches()
            return
        for path in [read] if read.is_file() else [path for path in read.rglob("*") if path.is_file()]:
            warm(path)
