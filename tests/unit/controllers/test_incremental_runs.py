"""Backups that start from earlier ones, in the simulated world: stopped anywhere, ended in any way."""

from collections.abc import Iterator

import pytest
from coeval.kube.kinds import (
    CONFIG_MAP,
    JOB,
    PERSISTENT_VOLUME,
    POD,
    SNAPSHOT_METADATA_SERVICE,
    VM_BACKUP,
    VOLUME_SNAPSHOT,
    VOLUME_SNAPSHOT_CONTENT,
)
from coeval.kube.port import Forbidden, Object

from tests.unit.controllers.scene import SHOP, track_changes
from tests.unit.controllers.sim import Sim
from tests.unit.controllers.sim_world import HOME
from tests.unit.controllers.test_crash_everywhere import Future, try_all
from tests.unit.fakeapi import Call, Moment
from tests.unit.rbac import shipped_rights

KEEP = {"changedBlocks": {"keepBase": "Auto"}}
STRATEGIES = ("Rewind", "RollForward", "Direct", "Auto")


def kept(backup: Object) -> set[str]:
    """Names of the snapshots that a backup says it has kept."""
    volumes = backup.get("status", {}).get("volumes") or []
    return {v["t1"]["snapshot"] for v in volumes if v.get("t1", {}).get("keptAsBase")}


def leaks(sim: Sim, bases: set[str]) -> Iterator[str]:
    """What must not be there when no backup runs, but for the snapshots `bases`, which must be."""
    if sim.guest.held:
        yield "the guest is held"
    snapshots = sim.api.all(VOLUME_SNAPSHOT)
    if {s["metadata"]["name"] for s in snapshots} != bases:
        yield f"snapshots {[s['metadata']['name'] for s in snapshots]} in place of {bases}"
    contents = sim.api.all(VOLUME_SNAPSHOT_CONTENT)
    if {c["metadata"]["name"] for c in contents} != {
        s["status"]["boundVolumeSnapshotContentName"] for s in snapshots
    }:
        yield "contents and snapshots do not agree"
    if any(c["spec"]["deletionPolicy"] != "Delete" for c in contents):
        yield "a snapshot that is kept would leave its storage behind"
    if len(sim.backends) != len(bases):
        yield f"backend snapshots {list(sim.backends)}"
    for kind in (CONFIG_MAP, JOB, POD, PERSISTENT_VOLUME):
        for obj in sim.api.all(kind):
            if kind is not PERSISTENT_VOLUME or obj["spec"].get("claimRef", {}).get("namespace") == HOME:
                yield f"{kind.kind} {obj['metadata']['name']}"
    yield from (name for name, e in sim.repository.items() if e.tags & {"interim", "part"})


def backup(sim: Sim, name: str) -> Object | None:
    return sim.api.find(VM_BACKUP, name, SHOP)


def check(sim: Sim) -> None:
    """After the end of the second backup `c`, whatever that was: the newest one that is whole has bases."""
    first, second = backup(sim, "b") or {}, backup(sim, "c")
    whole = second is not None and second["status"]["phase"] == "Completed"
    bases = kept(second if second is not None and whole else first)
    if second is None and len(sim.repository) == 2:
        # It may have freed others before it was deleted, and what it had kept went with it.
        bases &= {s["metadata"]["name"] for s in sim.api.all(VOLUME_SNAPSHOT)}
    assert list(leaks(sim, bases)) == []
    assert len(sim.repository) <= 2
    for entry in sim.repository.values():
        assert len(set(entry.volumes.values())) == 1, f"a broken moment: {entry.volumes}"


async def after_first(spec: Object) -> Sim:
    """The first backup is complete and has kept its snapshots; the second is about to begin."""
    sim = Sim(spec=KEEP)
    track_changes(sim.api)
    await sim.run()
    assert len(kept(backup(sim, "b") or {})) == 2
    assert list(leaks(sim, kept(backup(sim, "b") or {}))) == []
    sim.advance(60)
    sim.next_backup("c", **spec)
    return sim


@pytest.mark.parametrize("strategy", STRATEGIES)
async def test_each_strategy_starts_from_the_backup_before(strategy: str) -> None:
    sim = await after_first(KEEP | {"images": {"strategy": strategy}})
    await sim.run()
    check(sim)
    volumes = {v["name"]: v for v in sim.status()["volumes"]}
    assert {v["base"]["backup"] for v in volumes.values()} == {"b"}
    assert volumes["data"]["copy"]["changeSource"] == "CSI"
    expected = "Compare" if strategy == "Direct" else "CSIThroughExtents"
    assert volumes["root"]["copy"]["changeSource"] == expected
    assert ("reconcile" in volumes["root"]) == (strategy == "Rewind")
    assert kept(backup(sim, "b") or {}) and len(kept(backup(sim, "c") or {})) == 2
    assert [e for e in sim.recorder.events if e[0] == "Warning"] == []


async def test_a_backup_that_keeps_none_leaves_those_of_the_one_before() -> None:
    sim = await after_first({})
    await sim.run()
    assert kept(backup(sim, "c") or {}) == set()
    assert list(leaks(sim, kept(backup(sim, "b") or {}))) == []
    # ... which the next one still starts from, though its copy is not the newest.
    sim.next_backup("d", images={"strategy": "RollForward"})
    await sim.run()
    assert {v["base"]["backup"] for v in sim.status()["volumes"]} == {"b"}
    assert {v["copy"]["changeSource"] for v in sim.status()["volumes"]} == {"CSI", "CSIThroughExtents"}


async def test_another_volume_behind_the_same_names_is_no_base() -> None:
    sim = await after_first(KEEP)
    volume = sim.api.find(PERSISTENT_VOLUME, "pv-db-data")
    assert volume is not None
    volume["spec"]["csi"]["volumeHandle"] = "restored by other means"
    sim.api.put(PERSISTENT_VOLUME, volume)
    await sim.run()
    check(sim)
    assert {v["name"]: "base" in v for v in sim.status()["volumes"]} == {"root": True, "data": False}


async def test_our_rights_suffice() -> None:
    sim = await after_first(KEEP)
    sim.api.allowed = shipped_rights()
    await sim.run()
    check(sim)
    assert sim.status()["phase"] == "Completed"


async def test_a_base_that_goes_while_the_next_one_runs_means_a_full_read() -> None:
    sim = await after_first(KEEP)
    await sim.run(until=lambda: "pointInTime" in sim.status())
    sim.api.remove(VM_BACKUP, "b", SHOP)
    await sim.run()
    check(sim)
    assert {v["copy"]["fallback"]["reason"] for v in sim.status()["volumes"]} == {"SnapshotUnknown"}


@pytest.mark.parametrize("overtakes", [False, True])
async def test_the_next_one_begins_while_its_base_still_cleans_up(overtakes: bool) -> None:
    sim = await after_first(KEEP)
    await sim.run(until=lambda: sim.status().get("phase") == "CleaningUp")
    cleaning = sim.world.key
    sim.next_backup("d", **KEEP)
    await sim.run(until=None if overtakes else lambda: bool(sim.status().get("volumes")))
    sim.world.key, following = cleaning, sim.world.key
    await sim.run()
    sim.world.key = following
    await sim.run()
    volumes = sim.status()["volumes"]
    assert {v["base"]["backup"] for v in volumes} == {"c"}
    assert [v["copy"]["fallback"] for v in volumes if "fallback" in v["copy"]] == []
    assert list(leaks(sim, kept(backup(sim, "d") or {}))) == []


async def test_a_backup_that_is_being_deleted_is_no_base() -> None:
    """Its data may go before it was read."""
    sim = await after_first(KEEP)
    first = backup(sim, "b")
    assert first is not None
    sim.api.put(VM_BACKUP, first | {"metadata": first["metadata"] | {"finalizers": ["coeval.dev/cleanup"]}})
    sim.api.remove(VM_BACKUP, "b", SHOP)
    await sim.run()
    assert [v["base"] for v in sim.status()["volumes"] if "base" in v] == []
    reasons = {v["copy"]["fallback"]["reason"] for v in sim.status()["volumes"]}
    assert (sim.status()["phase"], reasons) == ("Completed", {"NoEarlierBackup"})


async def test_without_drivers_that_track_nothing_is_kept() -> None:
    sim = Sim(spec=KEEP)
    await sim.run()
    assert list(leaks(sim, set())) == []
    sim.next_backup("c", **KEEP)
    await sim.run()
    assert list(leaks(sim, set())) == []
    reasons = {v["copy"]["fallback"]["reason"] for v in sim.status()["volumes"]}
    assert reasons == {"NoMetadataService"}
    assert {v["base"]["backup"] for v in sim.status()["volumes"]} == {"b"}


async def test_a_role_that_does_not_know_of_changed_blocks_stops_no_backup() -> None:
    sim = await after_first(KEEP)
    sim.api.allowed = lambda call: call.kind is not SNAPSHOT_METADATA_SERVICE
    await sim.run()
    reasons = {v["copy"]["fallback"]["reason"] for v in sim.status()["volumes"]}
    assert (sim.status()["phase"], reasons) == ("Completed", {"MetadataServiceInvalid"})
    assert list(leaks(sim, kept(backup(sim, "b") or {}))) == []


async def test_a_refusal_to_keep_a_snapshot_is_no_reason_to_ask_without_a_pause() -> None:
    sim = Sim(spec=KEEP)
    track_changes(sim.api)
    sim.api.allowed = lambda call: (call.verb, call.kind) != ("patch", VOLUME_SNAPSHOT_CONTENT)
    await sim.run(until=lambda: "trouble" in sim.status())
    before, since = sim.reconciles, sim.now()
    await sim.run(until=lambda: (sim.now() - since).total_seconds() > 60)
    assert sim.reconciles - before < 70
    assert "snapcontent-" in sim.condition("Ready")["message"]
    sim.api.allowed = None
    await sim.run()
    assert list(leaks(sim, kept(backup(sim, "b") or {}))) == []


async def test_a_base_that_may_not_be_freed_does_not_keep_the_next_backup_from_its_end() -> None:
    sim = await after_first(KEEP)
    olds = kept(backup(sim, "b") or {})

    def refuse(moment: Moment, call: Call) -> None:
        if moment == "before" and call.verb == "delete" and call.name in olds:
            raise Forbidden(403, "Forbidden", "a policy keeps it")

    sim.api.hook = refuse
    await sim.run()
    sim.api.hook = None
    assert sim.status()["phase"] == "Completed"
    assert {s["metadata"]["name"] for s in sim.api.all(VOLUME_SNAPSHOT)} == olds | kept(sim.backup() or {})
    sim.advance(60)
    sim.next_backup("d", **KEEP)
    await sim.run()
    assert list(leaks(sim, kept(sim.backup() or {}))) == []


async def comes_back(sim: Sim) -> None:
    await sim.run()
    assert sim.status()["phase"] == "Completed"
    check(sim)


async def is_cancelled(sim: Sim) -> None:
    if sim.backup() is not None:
        sim.patch_spec(cancel=True)
        await sim.run()
        check(sim)


async def is_deleted(sim: Sim) -> None:
    sim.delete_backup()
    await sim.run()
    sim.advance(5)  # the garbage collector and the driver, when we are done
    check(sim)


@pytest.mark.parametrize("future", [comes_back, is_cancelled, is_deleted])
@pytest.mark.parametrize("strategy", ["Rewind", "RollForward"])
async def test_stopped_anywhere_it_settles(strategy: str, future: Future) -> None:
    sim = await after_first(KEEP | {"images": {"strategy": strategy}})
    await try_all(sim, future, check, least=40)
