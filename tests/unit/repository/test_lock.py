"""restic's locks: who stops whom, when one is stale, and that none is left behind."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from datetime import UTC, datetime, timedelta

import pytest
from coeval.repository import lock as locks
from coeval.repository.errors import (
    RepositoryDamaged,
    RepositoryFull,
    RepositoryLocked,
    RepositoryUnreachable,
)
from coeval.repository.lock import LockInfo
from coeval.repository.repository import Repository
from coeval.repository.store import Kind

from tests.tools.repositories import MemoryStore


def put(repository: Repository, **changes: object) -> str:
    doc = {
        "time": datetime.now(UTC).isoformat(),
        "exclusive": True,
        "hostname": "elsewhere",
        "username": "u",
        "pid": 1,
    }
    return repository.save_file(Kind.LOCK, json.dumps(doc | changes).encode())


def held(repository: Repository) -> list[str]:
    return list(repository.names(Kind.LOCK))


def ended_pid() -> int:
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_plain_locks_stand_side_by_side_and_go(repository: Repository) -> None:
    with repository.lock(), repository.lock():
        assert len(held(repository)) == 2
        for name in held(repository):
            doc = json.loads(repository.load_file(Kind.LOCK, name))
            assert (doc["exclusive"], doc["pid"], doc["hostname"]) == (
                False,
                os.getpid(),
                socket.gethostname(),
            )
    assert not held(repository)


def test_a_fresh_exclusive_lock_stops_us_and_stays(repository: Repository) -> None:
    name = put(repository)
    with pytest.raises(RepositoryLocked, match=f"elsewhere.*{name}.*restic unlock"), repository.lock():
        pass
    assert held(repository) == [name]


def test_an_exclusive_lock_that_appears_while_we_settle_stops_us(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: put(repository))
    with pytest.raises(RepositoryLocked), repository.lock(exclusive=True):
        pass
    assert len(held(repository)) == 1


def test_an_exclusive_lock_that_appears_before_ours_is_written_stops_us(
    repository: Repository, store: MemoryStore
) -> None:
    def rival(verb: str, kind: Kind, name: str) -> None:
        if verb == "save":
            store.before = lambda verb, kind, name: None
            put(repository)

    store.before = rival
    with pytest.raises(RepositoryLocked), repository.lock():
        pass
    assert len(held(repository)) == 1


def test_a_plain_lock_waits_only_where_the_listing_lags(
    repository: Repository, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    with repository.lock():
        assert not waits
    monkeypatch.setattr(store, "entries", lambda kind: iter(()))
    with repository.lock():
        assert len(waits) == 1


@pytest.mark.parametrize("exclusive", [True, False])
def test_stale_locks_are_removed(repository: Repository, exclusive: bool) -> None:
    old = (datetime.now(UTC) - timedelta(minutes=31)).isoformat()
    put(repository, exclusive=exclusive, time=old)
    put(repository, exclusive=exclusive, hostname=socket.gethostname(), pid=ended_pid())
    with repository.lock():
        assert len(held(repository)) == 1
    assert not held(repository)


def test_a_lock_is_stale_by_age_or_by_a_gone_process_of_this_host() -> None:
    now = datetime.now(UTC)
    here = socket.gethostname()
    assert not LockInfo("n", now - timedelta(minutes=29), True, "elsewhere", "u", 1).stale(now)
    assert LockInfo("n", now - timedelta(minutes=31), True, "elsewhere", "u", 1).stale(now)
    assert not LockInfo("n", now, True, here, "u", os.getpid()).stale(now)
    assert LockInfo("n", now, True, here, "u", ended_pid()).stale(now)


def test_errors_and_signals_leave_no_lock(repository: Repository) -> None:
    for error in (KeyboardInterrupt, SystemExit, RuntimeError):
        with pytest.raises(error), repository.lock():
            raise error
        assert not held(repository)


def test_an_interruption_while_the_lock_is_written_leaves_none(
    repository: Repository, store: MemoryStore
) -> None:
    original = store.save

    def interrupted(*arguments: object) -> None:
        original(*arguments)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    store.save = interrupted  # type: ignore[method-assign, assignment]
    with pytest.raises(KeyboardInterrupt), repository.lock():
        pass
    assert not held(repository)


def test_a_damaged_lock_is_named(repository: Repository, store: MemoryStore) -> None:
    name = put(repository)
    store.objects[Kind.LOCK, name] = b"x" + store.objects[Kind.LOCK, name][1:]
    with pytest.raises(RepositoryDamaged, match=f"locks/{name}.*remove-all"), repository.lock():
        pass


def test_a_lock_is_refreshed_by_a_new_object(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "REFRESH_SECONDS", 0.01)
    with repository.lock() as lock:
        first = held(repository)
        deadline = time.monotonic() + 10
        while set(first) & set(held(repository)):
            assert time.monotonic() < deadline
        lock.check()
    assert not held(repository)


def test_writing_stops_when_the_lock_cannot_be_refreshed(
    repository: Repository, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "REFRESH_SECONDS", 0.01)
    monkeypatch.setattr(locks, "LOST_SECONDS", 0.05)
    with repository.lock() as lock:

        def broken(verb: str, kind: Kind, name: str) -> None:
            if verb == "save":
                raise RepositoryUnreachable("away")

        store.before = broken
        deadline = time.monotonic() + 10
        with pytest.raises(RepositoryLocked, match="nothing was committed"):
            while time.monotonic() < deadline:
                lock.check()
    assert not held(repository)


def test_on_a_full_store_only_what_needs_no_lock_goes_on(repository: Repository, store: MemoryStore) -> None:
    def full(verb: str, kind: Kind, name: str) -> None:
        if verb == "save":
            raise RepositoryFull("full")

    store.before = full
    with pytest.raises(RepositoryFull), repository.lock():
        pass
    with repository.lock(needed=False):
        pass
    put_before, store.before = store.before, lambda verb, kind, name: None
    put(repository)
    store.before = put_before
    with pytest.raises(RepositoryLocked), repository.lock(needed=False):
        pass
