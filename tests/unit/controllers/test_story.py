"""The operator's log: a line per transition of a VMBackup, and nothing between."""

import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from coeval.api.v1alpha1.moment import QuiesceStatus
from coeval.api.v1alpha1.vmbackup import VMBackupStatus
from coeval.controllers.vmbackup.story import told

from tests.unit.controllers.sim import Sim
from tests.unit.controllers.worlds import NOW, at

ROOT = Path(__file__).resolve().parents[3]
OURS = "coeval.controllers.vmbackup"
STANDARD = vars(logging.makeLogRecord({})).keys() | {"message", "asctime"}


@pytest.fixture
def caplog(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.INFO, logger=OURS):
        yield caplog


def lines(caplog: pytest.LogCaptureFixture) -> list[tuple[str, dict[str, Any]]]:
    return [
        (r.getMessage(), {k: v for k, v in vars(r).items() if k not in STANDARD})
        for r in caplog.records
        if r.name.startswith(OURS)
    ]


async def test_a_backup_that_completes(caplog: pytest.LogCaptureFixture) -> None:
    sim = Sim()
    await sim.run()
    found = lines(caplog)
    assert {(said["object"], said["vm"]) for _, said in found} == {("shop/b", "db")}
    events = [event for event, _ in found if event not in ("phase", "mover started", "mover ended")]
    assert events == [
        "backup seen",
        "quiesce intended",
        "quiesced",
        "release sent",
        "moment taken",
        "guest released",
        "outcome decided",
        "backup ended",
    ]
    assert [said["phase"] for event, said in found if event == "phase"] == [
        "Quiescing",
        "SnapshottingT1",
        "Copying",
        "Reconciling",
        "Committing",
        "CleaningUp",
    ]
    movers = [
        (event.split()[1], said["verb"], said.get("volume"))
        for event, said in found
        if event.startswith("mover")
    ]
    assert movers == [
        (what, verb, volume)
        for verb, volume in (
            ("copy", "data"),
            ("copy", "root"),
            ("retime", "root"),
            ("commit", None),
            ("verify", None),
        )
        for what in ("started", "ended")
    ]
    said = dict(found)
    status = sim.status()
    assert said["quiesce intended"]["at"] == status["quiesce"]["intentAt"]
    assert said["guest released"]["at"] == status["quiesce"]["releaseSeenAt"]
    assert 0 < said["guest released"]["held_seconds"] < 2
    assert said["moment taken"]["point_in_time"] == status["pointInTime"]
    assert said["moment taken"]["consistency"] == "Filesystem"
    assert (said["backup ended"]["result"], said["backup ended"]["reason"]) == (
        "Completed",
        "BackupCompleted",
    )
    assert said["backup ended"]["seconds"] > 0


async def test_a_backup_that_fails_says_why_and_what_became_of_its_parts(
    caplog: pytest.LogCaptureFixture,
) -> None:
    sim = Sim()
    sim.behaviour.errors = {"root": {"reason": "RepositoryFull", "message": "no space left"}}
    await sim.run()
    found = lines(caplog)
    [decided] = [said for event, said in found if event == "outcome decided"]
    assert (decided["result"], decided["reason"]) == ("Failed", "RepositoryFull")
    assert "no space left" in decided["text"]
    ended = [(said["verb"], said.get("state")) for event, said in found if event == "mover ended"]
    assert ended == [("copy", "Done"), ("copy", "Failed"), ("forget", None)]
    assert found[-1][0] == "backup ended"


async def test_a_restart_tells_nothing_twice(caplog: pytest.LogCaptureFixture) -> None:
    sim = Sim()
    await sim.run(until=lambda: "pointInTime" in sim.status())
    await sim.run()
    once = [event for event, _ in lines(caplog) if not event.startswith(("mover", "phase"))]
    assert len(once) == len(set(once))


def test_an_attempt_that_is_given_up() -> None:
    quiesce = QuiesceStatus(method="GuestFreeze", intent_at=NOW, attempts=1)
    old = VMBackupStatus(quiesce=quiesce)
    new = VMBackupStatus(
        quiesce=quiesce.model_copy(update={"abandoned": "QuiesceAmbiguous", "message": "no answer"})
    )
    [line] = told(old, new)
    assert (line.event, line.fields) == (
        "moment given up",
        {"method": "GuestFreeze", "attempt": 1, "reason": "QuiesceAmbiguous", "text": "no answer"},
    )
    again = VMBackupStatus(quiesce=QuiesceStatus(method="Pause", intent_at=at(5), attempts=2))
    assert [line.event for line in told(new, again)] == ["quiesce intended"]


def test_the_page_lists_every_event() -> None:
    source = "".join(
        (ROOT / f"operator/coeval/controllers/vmbackup/{name}.py").read_text() for name in ("story", "act")
    )
    events = set(re.findall(r"(?:Line|log\.info)\(\s*\"([^\"]+)\"", source))
    page = (ROOT / "docs/operate.md").read_text()
    assert events == set(re.findall(r"^\| `([A-Za-z ]+)` \|", page, re.MULTILINE)) - {"event"}


def test_no_change_says_nothing() -> None:
    status = VMBackupStatus(quiesce=QuiesceStatus(method="Pause", intent_at=NOW))
    assert told(status, status) == []
