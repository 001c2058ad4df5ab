"""The method is the best that is left; the proof holds for one moment and for nothing else."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from coeval.domain.consistency import Level, Method, MomentWindow, Quietness, choose, prove
from coeval.domain.roles import Problem
from hypothesis import given
from hypothesis import strategies as st

NO_AGENT = Quietness(running=True)
AGENT = Quietness(running=True, agent_connected=True, freezable=True)
STOPPED = Quietness(running=False)
FREEZE_REFUSED = {"GuestFreeze": "it said no"}
BOTH_REFUSED = {**FREEZE_REFUSED, "Pause": "forbidden"}


@pytest.mark.parametrize(
    ("required", "guest", "expected"),
    [
        ("Auto", AGENT, Method.GUEST_FREEZE),
        ("Crash", AGENT, Method.GUEST_FREEZE),
        ("Filesystem", AGENT, Method.GUEST_FREEZE),
        ("BestEffort", AGENT, Method.NONE),
        ("Auto", NO_AGENT, Method.PAUSE),
        ("Crash", NO_AGENT, Method.PAUSE),
        ("Filesystem", NO_AGENT, "GuestAgentUnavailable"),
        ("BestEffort", NO_AGENT, Method.NONE),
        ("Auto", replace(AGENT, freezable=None), Method.GUEST_FREEZE),
        ("Auto", replace(AGENT, freezable=False), Method.PAUSE),
        ("Filesystem", replace(AGENT, freezable=False), "GuestAgentUnavailable"),
        ("Auto", replace(AGENT, refused=FREEZE_REFUSED), Method.PAUSE),
        ("Filesystem", replace(AGENT, refused=FREEZE_REFUSED), "FreezeRefused"),
        ("Auto", replace(AGENT, refused=BOTH_REFUSED), "QuiesceRefused"),
        ("Auto", STOPPED, Method.STOPPED),
        ("Crash", STOPPED, Method.STOPPED),
        ("Filesystem", STOPPED, "FilesystemConsistencyUnproven"),
        ("BestEffort", STOPPED, Method.NONE),
    ],
)
def test_choose(required: str, guest: Quietness, expected: Method | str) -> None:
    found = choose(Level(required), guest)
    if isinstance(expected, Method):
        assert found is expected
    else:
        assert isinstance(found, Problem)
        assert found.reason == expected
        assert found.message


ORDER = [Level.BEST_EFFORT, Level.CRASH, Level.FILESYSTEM]
LEAST = {Level.AUTO: Level.CRASH}
QUIET = st.builds(
    Quietness,
    running=st.booleans(),
    agent_connected=st.booleans(),
    freezable=st.none() | st.booleans(),
    refused=st.none() | st.dictionaries(st.sampled_from(["GuestFreeze", "Pause"]), st.just("no")),
)


@given(st.sampled_from(list(Level)), QUIET)
def test_what_is_asked_for_is_never_lowered(required: Level, guest: Quietness) -> None:
    found = choose(required, guest)
    if isinstance(found, Method):
        assert ORDER.index(found.level) >= ORDER.index(LEAST.get(required, required))
        assert found not in (guest.refused or {}) or not found.holds


SENT = datetime(2026, 11, 23, 10, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return SENT + timedelta(seconds=seconds)


GOOD = MomentWindow(
    quiesce_sent=SENT,
    quiesce_returned=at(0.4),
    creation_times_seen=at(2),
    release_sent=at(2.1),
    timer=60,
    margin=5,
)
FACTS = {"instance": "u1", "node": "n1"}


def test_a_good_window_is_proven() -> None:
    assert prove(Method.GUEST_FREEZE, GOOD, FACTS, dict(FACTS)) is None


@pytest.mark.parametrize(
    ("window", "reason"),
    [
        (replace(GOOD, quiesce_returned=None), "QuiesceAmbiguous"),
        (replace(GOOD, creation_times_seen=None), "SnapshotNotReady"),
        (replace(GOOD, release_sent=None), "WindowBroken"),
        (replace(GOOD, release_sent=at(1.9)), "WindowBroken"),
        (replace(GOOD, creation_times_seen=at(54), release_sent=at(55.1)), "WindowExceeded"),
        (replace(GOOD, timer=8, margin=1, creation_times_seen=at(7), release_sent=at(7.1)), "WindowExceeded"),
    ],
)
def test_a_broken_window_is_not(window: MomentWindow, reason: str) -> None:
    broken = prove(Method.GUEST_FREEZE, window, FACTS, FACTS)
    assert broken is not None
    assert broken.reason == reason


def test_a_pause_has_no_timer() -> None:
    late = replace(GOOD, timer=None, creation_times_seen=at(100), release_sent=at(101))
    assert prove(Method.PAUSE, late, FACTS, FACTS) is None


def test_a_guest_that_was_found_released_proves_nothing() -> None:
    broken = prove(Method.PAUSE, GOOD, FACTS, FACTS, found_released=True)
    assert broken is not None
    assert broken.reason == "WindowBroken"


def test_a_stopped_guest_needs_no_release() -> None:
    stopped = replace(GOOD, release_sent=None, timer=None)
    assert prove(Method.STOPPED, stopped, FACTS, FACTS) is None
    started = prove(Method.STOPPED, stopped, {"instance": "none"}, {"instance": "u2"})
    assert started is not None
    assert started.reason == "GuestChanged"


@given(
    st.dictionaries(st.text(max_size=5), st.text(max_size=5)),
    st.dictionaries(st.text(max_size=5), st.text(max_size=5)),
)
def test_any_change_breaks_it(before: dict[str, str], after: dict[str, str]) -> None:
    assert (prove(Method.GUEST_FREEZE, GOOD, before, after) is None) == (before == after)


@given(
    returned=st.floats(0, 100),
    seen=st.floats(0, 100),
    released=st.floats(0, 100),
    timer=st.floats(5, 80),
    margin=st.floats(0, 5),
)
def test_what_is_proven_was_seen_while_the_guest_was_held(
    returned: float, seen: float, released: float, timer: float, margin: float
) -> None:
    window = MomentWindow(SENT, at(returned), at(seen), at(released), timer, margin)
    proven = prove(Method.GUEST_FREEZE, window, {}, {}) is None
    assert proven == (at(seen) <= at(released) <= SENT + timedelta(seconds=timer - margin))
