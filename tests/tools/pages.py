"""The shell blocks of README and docs, which tests run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

NOT_RUN = "<!-- not run: "


def blocks(page: Path) -> Iterator[tuple[str, str]]:
    """Each shell block of a page, and why it is not run ('' where it is)."""
    lines = page.read_text().splitlines()
    for start, line in enumerate(lines):
        if line == "```sh":
            end = lines.index("```", start)
            above = lines[start - 1]
            reason = above.removeprefix(NOT_RUN).removesuffix(" -->") if above.startswith(NOT_RUN) else ""
            yield "\n".join(lines[start + 1 : end]), reason
