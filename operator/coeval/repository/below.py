"""The repositories in folders of a place: one per VM, at `<namespace>/<vm>` below a BackupRepository."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice

from coeval.repository.errors import RepositoryUnreachable
from coeval.repository.store import Kind, Store, open_store

LOOKED_AT = 50
"""Folders that are looked into before the search ends: a place may hold much that is not ours."""

_KUBERNETES_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")


def repositories_below(url: str) -> Iterator[tuple[str, Store]]:
    """Give path and store of repositories below a URL, in no order. Raises what the store raises."""
    for folder in islice(_folders(url, 2), LOOKED_AT):
        store = open_store(f"{url.rstrip('/')}/{folder}")
        with suppress(RepositoryUnreachable):  # a folder that others keep for themselves
            if next(store.entries(Kind.CONFIG), None):
                yield folder, store


def _folders(url: str, depth: int) -> Iterator[str]:
    """Give paths of folders at a depth, as far as their names may be ours."""
    try:
        found = open_store(url).folders()
    except RepositoryUnreachable:
        return
    for name in filter(_KUBERNETES_NAME.fullmatch, found):
        if depth == 1:
            yield name
        else:
            yield from (f"{name}/{rest}" for rest in _folders(f"{url.rstrip('/')}/{name}", depth - 1))
