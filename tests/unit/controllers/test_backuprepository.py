"""A BackupRepository is Ready when a mover could use it, and says why when not."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from coeval.api.v1alpha1.backuprepository import BackupRepositorySpec, BackupRepositoryStatus
from coeval.controllers.backuprepository.controller import BackupRepositoryController
from coeval.controllers.backuprepository.decide import decide, probe_name
from coeval.controllers.backuprepository.world import RemoveProbe, RunProbe, World
from coeval.controllers.conditions import find
from coeval.controllers.mover_state import MoverJob, MoverPod
from coeval.controllers.settings import Settings
from coeval.kube.kinds import BACKUP_REPOSITORY, JOB, PERSISTENT_VOLUME_CLAIM, POD
from coeval.kube.port import Object

from tests.unit.controllers.sim import Recorder
from tests.unit.fakeapi import FakeApi

NOW = datetime(2026, 11, 23, 10, tzinfo=UTC)
SPEC = {
    "location": {"volume": {"persistentVolumeClaim": "repo"}},
    "encryption": {"passwordSecret": {"name": "main-key", "key": "password"}},
}
SETTINGS = Settings()
WORLD = World(
    name="main",
    uid="u",
    generation=1,
    deleting=False,
    spec=BackupRepositorySpec.model_validate(SPEC),
    status=BackupRepositoryStatus(),
    claim="Bound",
)


def job(**fields: Any) -> MoverJob:
    return MoverJob(name=probe_name(WORLD), uid="j", created=NOW, **fields)


def pod(**fields: Any) -> MoverPod:
    usual: dict[str, Any] = {"name": "p", "uid": "p", "created": NOW, "phase": "Failed"}
    return MoverPod(**(usual | {"job": probe_name(WORLD)} | fields))


def ready(status: BackupRepositoryStatus) -> tuple[str, str]:
    found = find(status.conditions, "Ready")
    assert found is not None
    return found.status, found.reason


def test_it_is_probed_first() -> None:
    plan = decide(WORLD, NOW, SETTINGS)
    assert plan.actions == (RunProbe(probe_name(WORLD)),)
    assert ready(plan.status) == ("False", "Probing")


def test_without_its_claim_it_is_not_probed() -> None:
    plan = decide(replace(WORLD, claim=None), NOW, SETTINGS)
    assert plan.actions == ()
    assert ready(plan.status) == ("False", "ClaimNotFound")
    assert "repo" in (plan.status.message or "")


def test_a_good_probe_makes_it_ready_and_is_repeated() -> None:
    plan = decide(replace(WORLD, jobs=(job(succeeded=True),)), NOW, SETTINGS)
    assert ready(plan.status) == ("True", "Probed")
    assert plan.actions == (RemoveProbe(probe_name(WORLD), "j"),)
    after = replace(WORLD, status=plan.status)
    assert decide(after, NOW + timedelta(minutes=29), SETTINGS).actions == ()
    later = decide(after, NOW + timedelta(minutes=30), SETTINGS)
    assert later.actions == (RunProbe(probe_name(WORLD)),)
    assert ready(later.status) == ("True", "Probed")


def test_a_new_spec_is_probed_at_once() -> None:
    plan = decide(replace(WORLD, jobs=(job(succeeded=True),)), NOW, SETTINGS)
    changed = replace(WORLD, status=plan.status, generation=2)
    again = decide(changed, NOW, SETTINGS)
    assert again.actions == (RunProbe(probe_name(changed)),)
    assert ready(again.status) == ("False", "Probing")


@pytest.mark.parametrize(
    ("pods", "reason"),
    [
        ((pod(result={"error": {"reason": "WrongPassword", "message": "no key fits"}}),), "WrongPassword"),
        ((pod(result={"error": {"reason": "not a reason", "message": "?"}}),), "MoverFailed"),
        ((pod(ended="OOMKilled, exit code 137"),), "ProbeFailed"),
        ((pod(waiting='FailedMount: secret "main-key" not found'),), "SecretNotFound"),
        ((pod(waiting="FailedMount: references non-existent secret key: password"),), "SecretNotFound"),
    ],
)
def test_a_failed_probe_says_why_and_is_repeated_soon(pods: tuple[MoverPod, ...], reason: str) -> None:
    world = replace(WORLD, jobs=(job(failed="BackoffLimitExceeded: no more", pods=pods),))
    plan = decide(world, NOW, SETTINGS)
    assert ready(plan.status) == ("False", reason)
    assert plan.note is not None
    assert plan.note[:2] == ("Warning", reason)
    after = replace(WORLD, status=plan.status)
    assert decide(after, NOW + timedelta(seconds=59), SETTINGS).actions == ()
    assert decide(after, NOW + timedelta(seconds=60), SETTINGS).actions == (RunProbe(probe_name(WORLD)),)


def test_a_missing_secret_is_told_while_the_probe_waits_for_it() -> None:
    waits = pod(phase="Pending", waiting='FailedMount: MountVolume.SetUp failed: secret "main-key" not found')
    plan = decide(replace(WORLD, jobs=(job(pods=(waits,)),)), NOW, SETTINGS)
    assert ready(plan.status) == ("False", "SecretNotFound")
    assert "main-key" in (plan.status.message or "")
    assert plan.actions == ()


BUCKET = WORLD.spec.model_validate(
    SPEC
    | {
        "location": {
            "s3": {
                "bucket": "vm-backups",
                "credentialsSecret": {"name": "s3"},
                "certificateAuthority": {"configMap": "s3-ca"},
            }
        }
    }
)


@pytest.mark.parametrize(
    ("waiting", "reason", "words"),
    [
        (
            'CreateContainerConfigError: secret "s3" not found',
            "SecretNotFound",
            ("s3", "spec.location.s3.credentialsSecret"),
        ),
        (
            "CreateContainerConfigError: couldn't find key AWS_ACCESS_KEY_ID in Secret coeval-system/s3",
            "SecretNotFound",
            ("AWS_SECRET_ACCESS_KEY",),
        ),
        (
            'FailedMount: secret "main-key" not found',
            "SecretNotFound",
            ("main-key", "spec.encryption.passwordSecret"),
        ),
        ('FailedMount: configmap "s3-ca" not found', "ConfigMapNotFound", ("certificateAuthority",)),
    ],
)
def test_what_a_bucket_lacks_is_told_by_name(waiting: str, reason: str, words: tuple[str, ...]) -> None:
    world = replace(WORLD, spec=BUCKET, claim=None)
    assert decide(world, NOW, SETTINGS).actions == (RunProbe(probe_name(WORLD)),)
    plan = decide(replace(world, jobs=(job(pods=(pod(phase="Pending", waiting=waiting),)),)), NOW, SETTINGS)
    assert ready(plan.status) == ("False", reason)
    for word in words:
        assert word in (plan.status.message or "")


@pytest.mark.parametrize(
    ("location", "field", "key"),
    [
        ({"gcs": {"bucket": "vm-backups"}}, "spec.location.gcs.credentialsSecret", "credentials.json"),
        (
            {"azure": {"account": "shop", "container": "vm-backups"}},
            "spec.location.azure.credentialsSecret",
            "AZURE_STORAGE_ACCOUNT_KEY",
        ),
    ],
)
def test_credentials_of_other_stores_are_told_by_their_field(location: Object, field: str, key: str) -> None:
    (place,) = location.values()
    place["credentialsSecret"] = {"name": "keys"}
    spec = WORLD.spec.model_validate(SPEC | {"location": location})
    waits = pod(phase="Pending", waiting='CreateContainerConfigError: secret "keys" not found')
    plan = decide(replace(WORLD, spec=spec, claim=None, jobs=(job(pods=(waits,)),)), NOW, SETTINGS)
    assert ready(plan.status) == ("False", "SecretNotFound")
    assert field in (plan.status.message or "") and key in (plan.status.message or "")


def test_the_probe_of_an_earlier_spec_is_removed() -> None:
    old = replace(job(), name="coeval-old")
    assert RemoveProbe("coeval-old", "j") in decide(replace(WORLD, jobs=(old,)), NOW, SETTINGS).actions


@dataclass
class Clock:
    time: datetime = field(default=NOW)

    def now(self) -> datetime:
        return self.time


async def test_through_the_api() -> None:
    """The Job is made, its answer is read from its pod, it is removed, and the secret is never read."""
    clock, recorder = Clock(), Recorder()
    api = FakeApi(now=clock.now)
    api.put(
        PERSISTENT_VOLUME_CLAIM, {"metadata": {"name": "repo"}, "status": {"phase": "Bound"}}, "coeval-system"
    )
    api.put(BACKUP_REPOSITORY, {"metadata": {"name": "main"}, "spec": SPEC})
    controller = BackupRepositoryController(api, recorder, clock, SETTINGS)
    await controller.reconcile(("", "main"))
    (probe,) = api.all(JOB)
    pod_spec = probe["spec"]["template"]["spec"]
    args = pod_spec["containers"][0]["args"]
    assert args[:2] == ["repo", "probe"] and "--vms" in args
    assert pod_spec["automountServiceAccountToken"] is False
    name, labels = probe["metadata"]["name"], probe["metadata"]["labels"]
    message = '{"error": {"reason": "RepositoryUnreachable", "message": "read-only file system"}}'
    terminated = {"terminated": {"exitCode": 1, "message": message}}
    api.put(
        POD,
        {
            "metadata": {"name": f"{name}-x", "labels": labels | {"batch.kubernetes.io/job-name": name}},
            "status": {"phase": "Failed", "containerStatuses": [{"state": terminated}]},
        },
        "coeval-system",
    )
    failed = {"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded", "message": ""}
    api.set_status(JOB, name, "coeval-system", {"conditions": [failed]})
    await controller.reconcile(("", "main"))
    stored: Object = api.find(BACKUP_REPOSITORY, "main") or {}
    (condition,) = stored["status"]["conditions"]
    assert (condition["status"], condition["reason"]) == ("False", "RepositoryUnreachable")
    assert api.all(JOB) == []
    assert recorder.events == [("Warning", "RepositoryUnreachable", "read-only file system")]
    assert not any(call.kind is not None and call.kind.plural == "secrets" for call in api.calls)
