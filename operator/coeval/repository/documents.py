"""JSON documents of a repository: whatever is wrong with one is told as one kind of error."""

from __future__ import annotations

import json
from typing import Any

MALFORMED = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What taking apart a document that is not what it should be may raise; parsers turn it into their own."""


def parse_document(text: bytes | str) -> Any:
    """Parse JSON. Raises ValueError, also where it is nested so deeply that the parser gives up."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def texts(value: object) -> tuple[str, ...]:
    """Take a list of strings; null is an empty one. Raises ValueError."""
    items = [] if value is None else value
    if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
        raise ValueError("a list of strings is not one")
    return tuple(items)


def identity(text: str) -> bytes:
    """Parse the id of a blob or an object: 32 bytes in hex. Raises ValueError, TypeError."""
    value = bytes.fromhex(text)
    if len(value) != 32:
        raise ValueError(f"{text!r} is no id")
    return value
