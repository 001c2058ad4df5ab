"""Names are DNS labels, and different for different purposes."""

import re

import pytest
from coeval.domain.naming import child
from hypothesis import given
from hypothesis import strategies as st

LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
VOLUMES = st.text(min_size=1, max_size=253)
UIDS = st.uuids().map(str)
STEPS = st.sampled_from(["t1", "t2", "t1-twin", "t2-twin", "copy", "retime", "commit", "manifests"])
PURPOSE = st.tuples(UIDS, STEPS, st.none() | VOLUMES, st.none() | st.integers(1, 999_999))


@given(PURPOSE)
def test_a_name_is_a_dns_label(purpose: tuple[str, str, str | None, int | None]) -> None:
    assert LABEL.fullmatch(child(*purpose))


@given(PURPOSE, PURPOSE)
def test_different_purposes_have_different_names(
    one: tuple[str, str, str | None, int | None], two: tuple[str, str, str | None, int | None]
) -> None:
    assert (child(*one) == child(*two)) == (one == two)


@given(UIDS, STEPS, st.integers(1, 99))
def test_volumes_with_the_same_slug_differ(uid: str, step: str, attempt: int) -> None:
    names = {child(uid, step, v, attempt) for v in ("a.b", "a-b", "A-b", "a--b", "a-b-")}
    assert len(names) == 5


def test_readable() -> None:
    assert child("u", "t1", "root", 2).split("-")[2:5] == ["t1", "2", "root"]


def test_a_step_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="too long"):
        child("u", "x" * 60, "v")
