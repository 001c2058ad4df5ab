"""The upload limit: how long who waits, by a clock of the test's own."""

from __future__ import annotations

import pytest
from coeval.repository.store import Kind
from coeval.repository.upload_limit import LimitedStore, TokenBucket
from hypothesis import given
from hypothesis import strategies as st

from tests.tools.repositories import MemoryStore

NAMES = [f"{number:064x}" for number in range(9)]


def test_a_debt_is_paid_back_before_the_next() -> None:
    bucket = TokenBucket(100.0)
    assert bucket.reserve(1000, now=50.0) == 0
    assert bucket.reserve(10, now=52.0) == 8
    assert bucket.reserve(10, now=52.0) == pytest.approx(8.1)
    assert bucket.reserve(10, now=60.2) == 0
    assert bucket.reserve(1000, now=500.0) == 0, "after idleness, but nothing was saved up"
    assert bucket.reserve(1, now=500.0) == 10


@given(
    st.lists(st.tuples(st.integers(0, 1000), st.floats(0, 10)), min_size=1, max_size=40), st.floats(1, 1000)
)
def test_never_more_than_the_rate_and_one_object(requests: list[tuple[int, float]], rate: float) -> None:
    bucket = TokenBucket(rate)
    now = 0.0
    begun: list[tuple[float, int]] = []
    for size, pause in requests:
        now += pause
        begun.append((now + bucket.reserve(size, now), size))
    for first in range(len(begun)):
        for last in range(first + 1, len(begun)):
            before_last = sum(size for _, size in begun[first:last])
            assert before_last <= rate * (begun[last][0] - begun[first][0]) + 1e-3


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def read(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds


def test_only_writes_wait(store: MemoryStore) -> None:
    clock = Clock()
    limited = LimitedStore(store, 10.0, clock=clock.read, sleep=clock.sleep)
    limited.save(Kind.PACK, NAMES[0], [b"12345", bytearray(5), memoryview(b"1234567890")])
    assert clock.now == 0
    assert limited.create(Kind.INDEX, NAMES[0], [b"x"])
    assert clock.now == 2
    assert not limited.create(Kind.INDEX, NAMES[0], [b"x"])
    assert clock.now == pytest.approx(2.1)
    at = clock.now
    assert limited.load(Kind.INDEX, NAMES[0]) == b"x"
    assert limited.load_range(Kind.PACK, NAMES[0], 1, 2) == b"23"
    assert list(limited.entries(Kind.PACK)) == [(NAMES[0], 20)]
    limited.remove(Kind.INDEX, NAMES[0])
    assert limited.sweep() == 0
    assert clock.now == at
    assert list(store.entries(Kind.INDEX)) == []
