"""A call that changes something gets no answer: it was never done, or it was done and nobody says so.

Unlike in test_crash_everywhere the operator lives on, and must neither trust nor forget what it asked for.
"""

from dataclasses import dataclass

import pytest
from coeval.kube.port import ApiError

from tests.unit.controllers.sim import Sim
from tests.unit.controllers.test_crash_everywhere import check_end
from tests.unit.fakeapi import Call, Moment


@dataclass(frozen=True)
class Case:
    """The world before a reconcile, and which of its calls is lost."""

    world: Sim
    offset: int
    call: str


async def cases(sim: Sim) -> list[Case]:
    """Every call of a whole run that changes something."""
    sim.behaviour.job_takes = 1
    found: list[Case] = []
    base, offset, reconcile = sim.fork(), 0, 1

    def hook(moment: Moment, call: Call) -> None:
        nonlocal base, offset, reconcile
        if moment == "after":
            return
        if sim.reconciles != reconcile:
            base, offset, reconcile = sim.fork(), 0, sim.reconciles
        if call.mutates:
            found.append(Case(base, offset, str(call)))
        offset += 1

    sim.api.hook = hook
    await sim.run()
    sim.api.hook = None
    return found


def lose(sim: Sim, case: Case, when: Moment) -> None:
    """Once, at that call."""
    count = -1

    def hook(moment: Moment, _: Call) -> None:
        nonlocal count
        if moment == "before":
            count += 1
        if count == case.offset and moment == when:
            sim.api.hook = None
            raise ApiError(0, "Timeout", "no answer")

    sim.api.hook = hook


@pytest.mark.parametrize("when", ["before", "after"])
async def test_any_lost_answer_does_no_harm(when: Moment) -> None:
    found = await cases(Sim())
    assert len(found) > 50
    for case in found:
        sim = case.world.fork()
        lose(sim, case, when)
        try:
            await sim.run()
            assert sim.api.hook is None, "the call was not reached"
            check_end(sim, "Completed")
        except AssertionError as error:
            raise AssertionError(f"lost {when}: {case.call}: {error}") from error
