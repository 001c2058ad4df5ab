"""Progress is a sum that never says 100 too early."""

from datetime import UTC, datetime

import pytest
from coeval.domain.duration import seconds
from coeval.domain.progress import Part, total
from hypothesis import given
from hypothesis import strategies as st

NOW = datetime(2026, 11, 23, 10, tzinfo=UTC)
PARTS = st.lists(
    st.builds(
        Part,
        done=st.integers(0, 1 << 40),
        total=st.integers(0, 1 << 40),
        per_second=st.none() | st.integers(0, 1 << 30),
        finished=st.booleans(),
    ),
    max_size=6,
)


def test_sum() -> None:
    found = total([Part(50, 100, 10), Part(100, 100, finished=True), Part(0, 100)], NOW)
    assert (found.done, found.total, found.per_second, found.percent) == (150, 300, 10, 50)
    assert found.eta == datetime(2026, 11, 23, 10, 0, 15, tzinfo=UTC)


@given(PARTS)
def test_hundred_means_finished(parts: list[Part]) -> None:
    found = total(parts, NOW)
    assert 0 <= found.percent <= 100
    assert found.done <= found.total
    assert (found.percent == 100) == all(p.finished for p in parts)


@pytest.mark.parametrize(("text", "expected"), [("24h", 86400), ("1h30m", 5400), ("90s", 90), ("0s", 0)])
def test_durations(text: str, expected: int) -> None:
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "1d", "30m1h", "h", "1.5h", "-1s"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        seconds(text)
