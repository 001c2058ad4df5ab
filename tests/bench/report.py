"""The report: a run's document as a table, as a picture, and as a page of the docs."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import Any

from tests.bench.compare import CHANGED, FULL, KNOWN, RESTORE, RETIME, UNCHANGED
from tests.bench.picture import bars
from tests.bench.tools import OURS, PLAIN

GIB = 1 << 30
MIB = 1 << 20
CASES = (
    FULL,
    UNCHANGED,
    UNCHANGED + KNOWN,
    CHANGED,
    CHANGED + KNOWN,
    RETIME,
    RETIME + KNOWN,
    RESTORE,
)
HEAD = ("tool", "MB/s", "spread", "CPU s/GiB", "peak RSS MiB", "read MiB", "stored MiB", "objects")
Doc = dict[str, Any]
Key = tuple[str, str, str]


class Medians:
    """A run's medians by (volume, case, tool)."""

    def __init__(self, doc: Doc) -> None:
        self.doc = doc
        self._records: dict[Key, list[Doc]] = defaultdict(list)
        for record in doc["records"]:
            volume = record["volume"]
            self._records[volume, record["case"], record["tool"]].append(record)

    def tools(self, volume: str, case: str) -> list[str]:
        """Tools that ran a case: ours first, then from fast to slow."""
        found = [tool for at_volume, at_case, tool in self._records if (at_volume, at_case) == (volume, case)]
        return sorted(found, key=lambda tool: (tool != OURS, self.of(volume, case, tool, "seconds")))

    def of(self, volume: str, case: str, tool: str, what: str) -> float:
        """Give the median of a field."""
        return median(float(record[what]) for record in self._records[volume, case, tool])

    def speeds(self, volume: str, case: str, tool: str) -> tuple[float, float, float]:
        """Give least, median and greatest of the volume's size by the time that it took, in MB/s."""
        size = self.doc["sizes"][volume]
        found = sorted(size / record["seconds"] / 1e6 for record in self._records[volume, case, tool])
        return found[0], median(found), found[-1]

    def ratio(self, volume: str, case: str, what: str, others: tuple[str, ...] = ()) -> tuple[str, float]:
        """Give the best other tool, and how many times more it needs than ours."""
        rivals = [
            tool
            for tool in self.tools(volume, case)
            if (tool in others if others else tool not in (OURS, *PLAIN) and not tool.startswith("bound"))
        ]
        if not rivals or OURS not in self.tools(volume, case):
            return "", 0.0
        best = min(rivals, key=lambda tool: self.of(volume, case, tool, what))
        return best, self.of(volume, case, best, what) / self.of(volume, case, OURS, what)


def table(doc: Doc) -> str:
    """Write every case as a Markdown table, then the targets."""
    found = Medians(doc)
    lines: list[str] = []
    for volume in doc["sizes"]:
        for case in CASES:
            tools = found.tools(volume, case)
            if not tools:
                continue
            lines += [f"\n**{volume}, {case}**\n", _line(HEAD), _line(["---"] * len(HEAD))]
            lines += [_line(_row(found, volume, case, tool)) for tool in tools]
            if case == FULL:
                lines += [_line([name, f"missing: {why}"]) for name, why in doc["missing"].items()]
    return "\n".join([*lines, "", *_targets(found)])


def write_docs(doc: Doc, folder: Path) -> None:
    """Write benchmarks.md and its picture."""
    found = Medians(doc)
    groups = [
        (f"{volume}, {case}", [(tool, *found.speeds(volume, case, tool)) for tool in tools])
        for volume in doc["sizes"]
        for case in (FULL, UNCHANGED, UNCHANGED + KNOWN, CHANGED, CHANGED + KNOWN, RESTORE)
        if len(tools := [tool for tool in found.tools(volume, case) if not tool.startswith("bound")]) > 1
        and (volume == next(iter(doc["sizes"])) or case == FULL)
    ]
    (folder / "benchmarks.svg").write_text(bars(groups))
    (folder / "benchmarks.md").write_text(_PAGE.format(about=_about(doc), table=table(doc).strip()))


_PAGE = """# Benchmarks

Written by `make bench`; do not edit.

{about}

![Speed of every tool, case by case](benchmarks.svg)

{table}
"""


_ABOUT = """
{cores} cores, {rounds} rounds, tools in turn within a round. {cache}, and earlier writes were waited for.
Volumes: {sizes}. Versions: {versions}. Each but cp and qemu-img compresses with zstd, at the fastest setting
that it offers, and encrypts.

- `vm`: ext4 with a machine's files, an eighth of them deleted, the rest holes. `random`: incompressible.
  `zero`: zeros, not holes. `database`: SQLite.
- MB/s: the volume's size by the median of wall time, process start and all; spread: least to greatest.
  read: by system calls.
- Changes: 1 % of the bytes, two thirds in runs of 1 MiB, one third in 16 KiB pieces all over. Ranges not
  known: everything is read.
- `bound`: the libraries alone on all cores. pipeline: SHA-256, zstd 1, AES-CTR and Poly1305, without reading
  and writing; hash: reading from the cache and SHA-256.
"""


def _about(doc: Doc) -> str:
    sizes = ", ".join(f"{volume} {size // MIB} MiB" for volume, size in doc["sizes"].items())
    versions = ", ".join(f"{tool} {version}" for tool, version in doc["versions"].items())
    cache = {
        "warm": "What is read was brought into the page cache before each run",
        "drop": "The page cache was emptied before each run",
    }[doc["caches"]]
    return _ABOUT.format(
        cores=doc["cores"], rounds=doc["rounds"], cache=cache, sizes=sizes, versions=versions
    ).strip() + (f"\n\n**{doc['note']}**" if doc.get("note") else "")


def _row(found: Medians, volume: str, case: str, tool: str) -> list[str]:
    least, middle, greatest = found.speeds(volume, case, tool)
    cpu = found.of(volume, case, tool, "cpu_seconds") * GIB / found.doc["sizes"][volume]
    row = [tool, f"{middle:.0f}", f"{least:.0f}–{greatest:.0f}", f"{cpu:.2f}"]
    if tool.startswith("bound"):
        return row
    row += [
        f"{found.of(volume, case, tool, what) / MIB:.{digits}f}"
        for what, digits in (("peak_rss", 0), ("bytes_read", 0), ("bytes_stored", 1))
    ]
    return [*row, f"{found.of(volume, case, tool, 'objects'):.0f}"]


def _line(cells: list[str] | tuple[str, ...]) -> str:
    return "| " + " | ".join(cells) + " |"


def _targets(found: Medians) -> list[str]:
    """Say what was aimed at and what came out, as ratios within this run."""
    volume = next(iter(found.doc["sizes"]))
    wanted: list[tuple[str, float, tuple[str, float]]] = [
        ("full copy, times the fastest rival", 1.7, found.ratio(volume, FULL, "seconds")),
        (
            "full copy, share of the bound",
            0.7,
            found.ratio(volume, FULL, "seconds", ("bound: pipeline",)),
        ),
        (
            "unchanged, ranges unknown, times the fastest rival",
            3.0,
            found.ratio(volume, UNCHANGED, "seconds"),
        ),
        (
            "unchanged, ranges unknown, share of reading and hashing",
            0.7,
            found.ratio(volume, UNCHANGED, "seconds", ("bound: hash",)),
        ),
        ("restore, times the fastest rival", 1.5, found.ratio(volume, RESTORE, "seconds")),
        ("restore, share of cp", 0.6, found.ratio(volume, RESTORE, "seconds", ("cp",))),
    ]
    lines = [f"**Targets, on {volume}**\n", _line(["", "wanted", "measured", "against"]), _line(["---"] * 4)]
    for what, least, (other, ratio) in wanted:
        if other:
            lines.append(_line([what, f"{least:g}", f"{ratio:.2f}", other]))
    cpu, times = found.ratio(volume, FULL, "cpu_seconds")
    if cpu:
        lines.append(
            _line(["full copy, CPU seconds of the thriftiest rival by ours", "", f"{times:.2f}", cpu])
        )
    return lines
