"""Where the test cluster keeps things: built ones by version, running ones by the cluster's name."""

from __future__ import annotations

import os
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
WRAPPERS = Path(__file__).resolve().parent / "build"
"""One folder per upstream with the go.mod and go.sum that pin it."""


def cache() -> Path:
    """Built binaries and images; safe to remove at any time, at the price of building again."""
    return Path(os.environ.get("COEVAL_CACHE") or Path.home() / ".cache" / "coeval").absolute()


def states() -> Path:
    """One folder per cluster, named after it."""
    return Path(os.environ.get("COEVAL_STATE") or "/var/tmp/coeval").absolute()
