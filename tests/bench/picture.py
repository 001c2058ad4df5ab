"""Bars as an SVG, written by hand: a drawing library would be the bench's largest dependency."""

from __future__ import annotations

from html import escape

from tests.bench.tools import OURS

Bar = tuple[str, float, float, float]
"""Tool; least, median and greatest MB/s."""

WIDTH, LABEL, BAR, GAP = 860, 110, 16, 30
_OURS, _OTHERS, _INK = "#2563a8", "#9aa5b1", "#222"


def bars(groups: list[tuple[str, list[Bar]]]) -> str:
    """Draw groups of bars, each on its own scale, longest first in its group; a line shows the spread."""
    parts: list[str] = []
    y = 8
    for title, found in groups:
        scale = (WIDTH - LABEL - 90) / max(greatest for _, _, _, greatest in found)
        parts.append(_text(0, y + 12, f"{title} (MB/s)", bold=True))
        y += 20
        for tool, least, middle, greatest in found:
            colour = _OURS if tool == OURS else _OTHERS
            parts.append(_text(LABEL - 8, y + 12, tool, anchor="end"))
            parts.append(
                f'<rect x="{LABEL}" y="{y}" width="{middle * scale:.1f}" height="{BAR - 3}" fill="{colour}"/>'
            )
            line = y + (BAR - 3) / 2
            ends = f'x1="{LABEL + least * scale:.1f}" x2="{LABEL + greatest * scale:.1f}"'
            parts.append(f'<line {ends} y1="{line}" y2="{line}" stroke="{_INK}"/>')
            parts.append(_text(LABEL + greatest * scale + 6, y + 12, f"{middle:.0f}"))
            y += BAR
        y += GAP - BAR
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" '
        'font-family="sans-serif" font-size="12">'
        f'<rect width="{WIDTH}" height="{y}" fill="#fff"/>{"".join(parts)}</svg>\n'
    )


def _text(x: float, y: float, text: str, *, anchor: str = "start", bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}" fill="{_INK}"{weight}>{escape(text)}</text>'
