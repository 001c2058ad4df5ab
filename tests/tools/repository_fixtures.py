"""Fixtures of the data plane's unit tests; each of their folders takes them in its conftest."""

from __future__ import annotations

import os

import pytest
from coeval.repository import lock
from coeval.repository.repository import Repository

from tests.tools.repositories import MemoryStore, new_repository


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rival's lock is visible at once here, and no test pulls the plug: both would only cost time."""
    monkeypatch.setattr(lock, "SETTLE_SECONDS", 0.0)
    monkeypatch.setattr(os, "fsync", lambda file: None)


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def repository(store: MemoryStore) -> Repository:
    return new_repository(store)
