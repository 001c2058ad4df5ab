"""Backups that meet trouble, from beginning to end in the simulated world."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from coeval.kube.kinds import (
    BACKUP_REPOSITORY,
    JOB,
    PERSISTENT_VOLUME,
    PERSISTENT_VOLUME_CLAIM,
    POD,
    VIRTUAL_MACHINE,
    VIRTUAL_MACHINE_INSTANCE,
    VM_BACKUP,
    VOLUME_SNAPSHOT,
    VOLUME_SNAPSHOT_CLASS,
    VOLUME_SNAPSHOT_CONTENT,
)
from coeval.kube.port import Object

from tests.unit.controllers.asserts import assert_failed
from tests.unit.controllers.scene import SHOP
from tests.unit.controllers.sim import Sim, leaks
from tests.unit.controllers.sim_world import HOME
from tests.unit.controllers.test_crash_everywhere import check_end


@pytest.fixture
def sim() -> Sim:
    return Sim()


def without(kind: object, name: str, namespace: str | None = None) -> Callable[[Sim], None]:
    return lambda sim: sim.api.remove(kind, name, namespace)  # type: ignore[arg-type]


def claim_pending(sim: Sim) -> None:
    sim.api.set_status(PERSISTENT_VOLUME_CLAIM, "db-data", SHOP, {"phase": "Pending"})


def no_csi(sim: Sim) -> None:
    sim.api.put(PERSISTENT_VOLUME, {"metadata": {"name": "pv-db-data"}, "spec": {"hostPath": {}}})


def repository_not_ready(sim: Sim) -> None:
    condition = {"type": "Ready", "status": "False", "reason": "SecretNotFound", "message": "no key"}
    sim.api.set_status(
        BACKUP_REPOSITORY,
        "main",
        None,
        {"conditions": [condition | {"lastTransitionTime": "2026-11-23T09:00:00Z"}]},
    )


def namespace_not_allowed(sim: Sim) -> None:
    found = sim.api.find(BACKUP_REPOSITORY, "main")
    assert found is not None
    found["spec"]["allowedNamespaces"] = {"matchLabels": {"backup": "yes"}}
    sim.api.put(BACKUP_REPOSITORY, found)


def vmi_status(**status: object) -> Callable[[Sim], None]:
    return lambda sim: sim.freeze_report(VIRTUAL_MACHINE_INSTANCE, status)


def vm_status(**status: object) -> Callable[[Sim], None]:
    return lambda sim: sim.freeze_report(VIRTUAL_MACHINE, status)


PROBLEMS: list[tuple[Callable[[Sim], None], str, str]] = [
    (without(VIRTUAL_MACHINE, "db", SHOP), "VirtualMachineNotFound", "shop/db"),
    (without(PERSISTENT_VOLUME_CLAIM, "db-data", SHOP), "ClaimNotFound", "shop/db-data"),
    (claim_pending, "ClaimNotBound", "Pending"),
    (no_csi, "ClaimNotSnapshottable", "db-data"),
    (without(VOLUME_SNAPSHOT_CLASS, "two"), "NoVolumeSnapshotClass", "two.csi.coeval.test"),
    (without(BACKUP_REPOSITORY, "main"), "RepositoryNotFound", "main"),
    (repository_not_ready, "RepositoryNotReady", "no key"),
    (namespace_not_allowed, "NamespaceNotAllowed", "shop"),
    (vmi_status(phase="Scheduling"), "VirtualMachineNotRunning", "Scheduling"),
    (vmi_status(migrationState={"migrationUid": "m"}), "MigrationInProgress", "migrated"),
    (vmi_status(fsFreezeStatus="frozen"), "GuestAlreadyFrozen", "frozen"),
    (vm_status(snapshotInProgress="s1"), "VirtualMachineBusy", "VirtualMachineSnapshot s1"),
]


@pytest.mark.parametrize(("break_it", "reason", "word"), PROBLEMS, ids=[p[1] for p in PROBLEMS])
async def test_preflight(break_it: Callable[[Sim], None], reason: str, word: str, sim: Sim) -> None:
    break_it(sim)
    started = sim.now()
    await sim.run()
    assert_failed(sim, reason, word)
    assert sim.guest.window == 0
    assert sim.now() - started >= timedelta(seconds=20)


async def test_all_problems_are_told_together(sim: Sim) -> None:
    claim_pending(sim)
    repository_not_ready(sim)
    sim.api.remove(VOLUME_SNAPSHOT_CLASS, "one")
    await sim.run(until=lambda: "Ready" in str(sim.status()))
    for word in ("db-data", "no key", "one.csi.coeval.test"):
        assert word in sim.condition("Ready")["message"]
    assert sim.condition("Stalled")["status"] == "False"


async def test_problems_that_heal_in_time_do_no_harm(sim: Sim) -> None:
    claim_pending(sim)

    def heal() -> None:
        sim.api.set_status(PERSISTENT_VOLUME_CLAIM, "db-data", SHOP, {"phase": "Bound"})

    sim.later(10, heal)
    await sim.run()
    check_end(sim, "Completed")
    assert "blockedSince" not in sim.status()


async def test_one_backup_of_a_vm_at_a_time(sim: Sim) -> None:
    other = {
        "metadata": {"name": "a-later-one"},
        "spec": {"virtualMachine": "db", "repository": "main"},
    }
    sim.api.put(VM_BACKUP, other, SHOP)
    controller = sim.controller()
    for _ in range(3):
        await controller.reconcile((SHOP, "a-later-one"))
    waiting: Object = (sim.api.find(VM_BACKUP, "a-later-one", SHOP) or {})["status"]
    ready = next(c for c in waiting["conditions"] if c["type"] == "Ready")
    assert (waiting["phase"], ready["reason"]) == ("Pending", "OtherBackupRunning")
    sim.advance(60)
    await controller.reconcile((SHOP, "a-later-one"))
    await sim.run()
    assert sim.status()["phase"] == "Completed"
    await controller.reconcile((SHOP, "a-later-one"))
    waiting = (sim.api.find(VM_BACKUP, "a-later-one", SHOP) or {})["status"]
    assert waiting["phase"] not in ("Pending", "Failed")


@pytest.mark.parametrize(
    ("who", "reason", "words"),
    [
        ("copy", "WrongPassword", ("main", "repo", "Secret")),
        ("copy", "RepositoryFull", ("main", "repo", "room")),
        ("retime", "RepositoryDamaged", ("restic check",)),
        ("commit", "RepositoryLocked", ("restic unlock",)),
        ("copy", "Internal", ("bug",)),
    ],
)
async def test_a_mover_s_words_become_the_backup_s(
    who: str, reason: str, words: tuple[str, ...], sim: Sim
) -> None:
    sim.behaviour.errors[who] = {"reason": reason, "message": "a bug"}
    await sim.run()
    assert_failed(sim, reason, "a bug", *words)


async def test_a_hopeless_failure_does_not_wait_for_more_tries(sim: Sim) -> None:
    sim.behaviour.errors["copy"] = {"reason": "WrongPassword", "message": "no key fits"}
    sim.behaviour.more_tries = True
    await sim.run()
    assert_failed(sim, "WrongPassword")


async def test_damage_found_by_verify_fails_and_keeps_the_entry(sim: Sim) -> None:
    sim.behaviour.errors["verify"] = {"reason": "RepositoryDamaged", "message": "pack x"}
    await sim.run()
    assert sim.status()["phase"] == "Failed"
    assert sim.condition("Verified")["status"] == "False"
    assert len(sim.repository) == 1
    assert "kept" in sim.condition("Ready")["message"]
    assert list(leaks(sim)) == []


async def test_what_could_not_be_forgotten_is_told(sim: Sim) -> None:
    sim.behaviour.errors |= {
        "retime": {"reason": "Internal", "message": "a bug"},
        "forget": {"reason": "RepositoryUnreachable", "message": "read-only"},
    }
    await sim.run()
    ready = sim.condition("Ready")
    assert ready["reason"] == "Internal"
    assert "partial copies in the repository were not removed" in ready["message"]
    assert "read-only" in ready["message"]
    assert sim.ours() == []


async def test_a_snapshot_that_a_user_deletes_fails_the_backup(sim: Sim) -> None:
    sim.behaviour.ready_after = 5
    await sim.run(until=lambda: "pointInTime" in sim.status())
    for content in sim.api.all(VOLUME_SNAPSHOT_CONTENT):  # under Retain it would be the user's to keep
        content["spec"]["deletionPolicy"] = "Delete"
        sim.api.put(VOLUME_SNAPSHOT_CONTENT, content)
    for vs in sim.api.all(VOLUME_SNAPSHOT):
        sim.api.remove(VOLUME_SNAPSHOT, vs["metadata"]["name"], SHOP)
    await sim.run()
    assert_failed(sim, "SnapshotLost", "deleted by somebody else")


async def test_a_job_that_somebody_deletes_is_made_again(sim: Sim) -> None:
    await sim.run(until=lambda: len(sim.api.all(JOB)) == 1)
    (job,) = sim.api.all(JOB)
    sim.api.remove(JOB, job["metadata"]["name"], HOME)
    await sim.run()
    check_end(sim, "Completed")


async def test_a_result_that_was_lost_with_its_pod_is_made_again(sim: Sim) -> None:
    await sim.run(until=lambda: any("conditions" in j.get("status", {}) for j in sim.api.all(JOB)))
    for pod in sim.api.all(POD):
        sim.api.remove(POD, pod["metadata"]["name"], HOME)
    await sim.run()
    check_end(sim, "Completed")


async def test_the_provisioner_s_forgotten_finalizer_is_no_trap(sim: Sim) -> None:
    sim.behaviour.stuck_provisioner = True
    await sim.run(
        until=lambda: any(c["spec"].get("dataSource") for c in sim.api.all(PERSISTENT_VOLUME_CLAIM))
    )
    sim.advance(2)
    sim.patch_spec(cancel=True)
    await sim.run()
    check_end(sim, "Cancelled")


async def test_a_claim_that_is_never_provisioned_fails(sim: Sim) -> None:
    sim.behaviour.stuck_provisioner = True
    await sim.run(seconds=2000)
    assert_failed(sim, "MoverNotStarted", "600 s")


async def test_a_deadline_ends_it() -> None:
    sim = Sim(spec={"deadline": "1m"})
    sim.behaviour.job_takes = 500
    await sim.run()
    assert_failed(sim, "DeadlineExceeded", "1m")


async def test_deleting_deletes_the_data_where_that_is_the_policy() -> None:
    sim = Sim(spec={"deletionPolicy": "Delete"})
    await sim.run()
    assert len(sim.repository) == 1
    backup = sim.backup()
    assert backup is not None
    assert backup["metadata"]["finalizers"] == ["coeval.dev/cleanup"]
    sim.delete_backup()
    await sim.run(until=lambda: sim.backup() is None)
    assert sim.repository == {}
    assert list(leaks(sim)) == []


async def test_an_ended_backup_never_changes(sim: Sim) -> None:
    await sim.run()
    before = sim.backup()
    sim.api.remove(VIRTUAL_MACHINE, "db", SHOP)
    sim.patch_spec(cancel=True)
    assert await sim.controller().reconcile((SHOP, "b")) is None
    assert (sim.backup() or {})["status"] == (before or {})["status"]


async def test_nothing_is_written_while_nothing_changes(sim: Sim) -> None:
    sim.behaviour.job_takes = 10_000
    await sim.run(until=lambda: "bytesDone" in str(sim.status().get("volumes")))
    await sim.run(until=lambda: "releaseSeenAt" in sim.status()["quiesce"])
    await sim.controller().reconcile((SHOP, "b"))
    version = sim.api.version()
    for _ in range(20):
        sim.advance(3)
        assert await sim.controller().reconcile((SHOP, "b")) == 3.0
    assert [c for c in sim.api.calls if c.verb == "replace_status"]
    assert sim.writes_since(version) == 0


async def test_no_label_of_the_user_is_copied(sim: Sim) -> None:
    backup = sim.backup()
    assert backup is not None
    tracked = {"app.kubernetes.io/instance": "argo", "team": "shop"}
    backup["metadata"]["labels"] = tracked
    sim.api.put(VM_BACKUP, backup)
    seen: list[Object] = []
    create = sim.api.create

    async def watch(kind: object, body: Object, namespace: str | None = None) -> Object:
        seen.append(body)
        return await create(kind, body, namespace)  # type: ignore[arg-type]

    sim.api.create = watch  # type: ignore[method-assign]
    await sim.run()
    assert len(seen) > 10
    for body in seen:
        assert not tracked.keys() & body["metadata"]["labels"].keys()
