"""What several tests of whole runs hold true."""

import re

from tests.unit.controllers.sim import Sim, leaks


def assert_failed(sim: Sim, reason: str, *words: str) -> None:
    """Stalled, with a reason, a message that helps, and nothing left."""
    status = sim.status()
    assert status["phase"] == "Failed", status["phase"]
    ready, stalled = sim.condition("Ready"), sim.condition("Stalled")
    assert (ready["status"], stalled["status"]) == ("False", "True")
    assert ready["reason"] == reason, ready
    assert re.fullmatch(r"([A-Z][a-z0-9]+)+", reason)
    for word in words:
        assert word in ready["message"], ready["message"]
    assert sim.condition("Reconciling")["status"] == "False"
    assert list(leaks(sim)) == []
    assert sim.repository == {}
    backup = sim.backup()
    assert backup is not None
    assert not backup["metadata"].get("finalizers")
