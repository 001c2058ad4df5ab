"""The bench itself, on volumes so small that its numbers say nothing: it must not rot between runs."""

from __future__ import annotations

import json
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from tests.bench.compare import CHANGED, FULL, KNOWN, RESTORE, RETIME, UNCHANGED, Settings, compare
from tests.bench.images import MIB, volume_in
from tests.bench.measure import Command, ProgramFailed, run
from tests.bench.report import table, write_docs
from tests.bench.tools import OURS, Missing, Restic, Rustic


@pytest.mark.restic
def test_every_case_runs_and_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere() -> str:
        raise Missing("not on this machine")

    monkeypatch.setattr(Rustic, "version", nowhere)
    tools = (OURS, Restic.name, Rustic.name)
    settings = Settings({"vm": 8 * MIB}, rounds=1, caches="warm", tools=tools, folder=tmp_path)
    [doc] = [json.loads(json.dumps(each)) for each in compare(settings, lambda text: None)]

    seen = {(record["case"], record["tool"]): record for record in doc["records"]}
    both = {FULL, UNCHANGED, CHANGED, RESTORE}
    ours = both | {UNCHANGED + KNOWN, CHANGED + KNOWN, RETIME, RETIME + KNOWN}
    assert {case for case, tool in seen if tool == OURS} == ours
    assert {case for case, tool in seen if tool == "restic"} == both
    full, known = seen[FULL, OURS], seen[CHANGED + KNOWN, OURS]
    assert full["bytes_stored"] > known["bytes_stored"] > 0
    assert full["objects"] and full["bytes_read"] and full["peak_rss"] and full["cpu_seconds"]

    text = table(doc)
    assert "| rustic | missing: not on this machine |" in text and "full copy, share of the bound" in text
    write_docs(doc, tmp_path)
    assert text.strip() in (tmp_path / "benchmarks.md").read_text()
    assert ET.parse(tmp_path / "benchmarks.svg").getroot().tag.endswith("svg")  # noqa: S314  (our own file)


def test_the_later_moments_differ_just_in_the_ranges(tmp_path: Path) -> None:
    volume = volume_in(tmp_path, "random", 2 * MIB)
    base = volume.image("base").read_bytes()
    for moment in ("later", "last"):
        doc = json.loads(volume.ranges(moment).read_text())
        changed = bytearray(volume.image(moment).read_bytes())
        assert changed != base and doc["size"] == len(base)
        for offset, length in doc["ranges"]:
            changed[offset : offset + length] = base[offset : offset + length]
        assert changed == base


def test_a_program_is_measured_to_its_end() -> None:
    script = "import sys; open(sys.executable, 'rb').read(); b = bytes(200 << 20); print('done')"
    usage, output = run(Command([sys.executable, "-c", script]))
    assert output == b"done\n"
    assert usage.bytes_read >= Path(sys.executable).stat().st_size
    assert usage.seconds > 0 and usage.cpu_seconds > 0
    with pytest.raises(ProgramFailed, match="no such thing"):
        run(Command([sys.executable, "-c", "raise SystemExit('no such thing')"]))
