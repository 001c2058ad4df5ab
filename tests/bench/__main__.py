"""`make bench`: run the comparison, print the table, write docs/benchmarks.md from it."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.bench.compare import Settings, compare
from tests.bench.images import KINDS, MIB
from tests.bench.report import table, write_docs
from tests.bench.tools import OURS, TOOLS

DOCS = Path(__file__).parents[2] / "docs"
DEFAULT_SIZES = "vm=1024,random=256,zero=1024,database=256"


def main() -> None:
    """Run with the command line's settings; everything else is the report's."""
    parser = argparse.ArgumentParser(prog="tests.bench", description=__doc__)
    parser.add_argument("--sizes", default=DEFAULT_SIZES, help="KIND=MIB, … (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="how often (default: %(default)s)")
    parser.add_argument("--caches", choices=("warm", "drop"), default="warm", help="page cache before a run")
    parser.add_argument("--tools", default=",".join(TOOLS), help="default: %(default)s")
    parser.add_argument("--folder", type=Path, help="for images and repositories; default: a temporary one")
    parser.add_argument("--json", type=Path, help="keep the run there")
    parser.add_argument("--from", dest="run", type=Path, help="report a kept run instead of running")
    parser.add_argument("--note", default="", help="what a reader of the page should know of this run")
    parser.add_argument("--docs", action="store_true", help="write docs/benchmarks.md and its picture")
    chosen = parser.parse_args()
    doc = json.loads(chosen.run.read_text()) if chosen.run else _run(chosen, parser)
    doc["note"] = chosen.note or doc.get("note", "")
    print(table(doc))
    if chosen.docs:
        write_docs(doc, DOCS)


def _run(chosen: argparse.Namespace, parser: argparse.ArgumentParser) -> dict[str, Any]:
    sizes = {kind: int(mib) * MIB for kind, mib in (part.split("=") for part in chosen.sizes.split(","))}
    tools = tuple(chosen.tools.split(","))
    if set(sizes) - set(KINDS) or set(tools) - set(TOOLS) or OURS not in tools:
        parser.error(f"volumes are {', '.join(KINDS)}; tools are {', '.join(TOOLS)}, {OURS} among them")
    with tempfile.TemporaryDirectory(prefix="coeval-bench-", dir=chosen.folder) as scratch:
        folder = chosen.folder or Path(scratch)
        settings = Settings(sizes, chosen.rounds, chosen.caches, tools, folder)
        for doc in compare(settings, lambda text: print(text, file=sys.stderr, flush=True)):
            if chosen.json:
                chosen.json.write_text(json.dumps(doc))
        return doc


if __name__ == "__main__":
    main()
