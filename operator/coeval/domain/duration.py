"""Durations as Kubernetes writes them."""

import re

_PART = re.compile(r"(\d+)([hms])")
_UNIT = {"h": 3600, "m": 60, "s": 1}


def seconds(text: str) -> int:
    """`1h30m` → 5400. ValueError for anything that is not hours, minutes, seconds in this order."""
    if not re.fullmatch(r"(\d+h)?(\d+m)?(\d+s)?", text) or not text:
        raise ValueError(f"not a duration: {text!r}; write hours, minutes, seconds as in 24h, 1h30m, 90s")
    return sum(int(number) * _UNIT[unit] for number, unit in _PART.findall(text))
