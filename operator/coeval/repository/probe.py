"""Proof that a store does what a repository needs of it, before anything is entrusted to it."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress

from coeval.repository.errors import ConditionalWritesIgnored, DataPlaneError, StoreUnfit
from coeval.repository.store import Kind, Store


def prove(store: Store) -> None:
    """Create an object twice, read it back, list it, remove it.

    Raises ConditionalWritesIgnored, StoreUnfit and what the store raises.
    """
    name, first, second = secrets.token_hex(32), os.urandom(64), os.urandom(64)
    # Where this fails, asking for a removal fails as well, with other words. What is there all the same, a
    # sweep removes.
    created = store.create(Kind.PROBE, name, [first])
    try:
        again = store.create(Kind.PROBE, name, [second])
        found = store.load(Kind.PROBE, name)
        listed = (name, len(first)) in store.entries(Kind.PROBE)
    except BaseException:
        with suppress(DataPlaneError):
            store.remove(Kind.PROBE, name)
        raise
    store.remove(Kind.PROBE, name)
    if again or found == second:
        raise ConditionalWritesIgnored(
            "the store writes over an object although told to write only if there is none (If-None-Match): "
            "two movers could make one repository twice; use a store that honours the condition"
        )
    if not created or found != first:
        raise StoreUnfit("the store does not keep what is written to it")
    if not listed:
        raise StoreUnfit(
            "the store does not list an object that was just written; locks of others would go unseen"
        )
