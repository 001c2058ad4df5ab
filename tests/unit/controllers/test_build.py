"""What we create: command lines that our own program accepts, and pods that the restricted profile admits."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
import typer
import yaml
from coeval.api.v1alpha1.backuprepository import BackupRepositorySpec
from coeval.api.v1alpha1.vmbackup import RepositoryStatus, Role, VMBackupSpec, VMBackupStatus, VolumeStatus
from coeval.cli.main import app
from coeval.controllers import movers, places
from coeval.controllers.settings import Settings
from coeval.controllers.vmbackup import build
from coeval.controllers.vmbackup.plan import (
    Ask,
    AskedThrough,
    MakeClaim,
    MakeTwin,
    Moment,
    RunMover,
    TakeSnapshot,
    Verb,
)
from coeval.controllers.vmbackup.world import Backup, Repository
from coeval.domain.storage import MetadataService
from coeval.kube.port import Object

T1 = datetime(2026, 11, 23, 10, 0, 0, tzinfo=UTC)
BACKUP = Backup(
    namespace="shop",
    name="b",
    uid="u-1",
    generation=1,
    created=T1,
    deleting=False,
    finalizer=True,
    spec=VMBackupSpec(virtual_machine="db", repository="main"),
    status=VMBackupStatus(repository=RepositoryStatus(path="prod/shop/db")),
)
REPOSITORY = Repository(
    name="main",
    ready=True,
    message="",
    allowed=True,
    spec=BackupRepositorySpec.model_validate(
        {
            "location": {"volume": {"persistentVolumeClaim": "repo", "prefix": "prod"}},
            "encryption": {"passwordSecret": {"name": "main-key", "key": "pass"}},
        }
    ),
)
BUCKET = BackupRepositorySpec.model_validate(
    {
        "location": {
            "s3": {
                "bucket": "vm-backups",
                "prefix": "prod/",
                "endpoint": "https://s3.example.com:9000",
                "region": "eu-1",
                "credentialsSecret": {"name": "s3"},
                "certificateAuthority": {"configMap": "s3-ca"},
            }
        },
        "encryption": {"passwordSecret": {"name": "main-key"}},
    }
)
IMAGE = VolumeStatus(
    name="root",
    role=Role.IMAGE,
    claim="db-root",
    driver="one",
    storage_class="fast",
    snapshot_class="snap",
    size_bytes=1 << 30,
)
DIRECT = IMAGE.model_copy(update={"name": "data", "role": Role.DIRECT, "claim": "db-data"})
SERVICE = MetadataService("cbt.example.com:443", "cbt", "-----BEGIN CERTIFICATE-----")
ACTIONS = {
    "copy direct": RunMover("j", Verb.COPY, 60, volume=DIRECT, claim="c", as_of=T1),
    "copy image": RunMover("j", Verb.COPY, 60, volume=IMAGE, claim="c", as_of=T1, interim=True),
    "retime": RunMover("j", Verb.RETIME, 60, volume=IMAGE, claim="c", as_of=T1, snapshots=("s1",)),
    "copy asked": RunMover(
        *("j", Verb.COPY, 60),
        volume=IMAGE,
        claim="c",
        as_of=T1,
        interim=True,
        parent="s0",
        ask=Ask(AskedThrough.EXTENTS, SERVICE, "twin", "handle"),
        record_extents=True,
    ),
    "commit": RunMover("j", Verb.COMMIT, 60, as_of=T1, snapshots=("s1", "s2"), manifests="m"),
    "verify sample": RunMover("j", Verb.VERIFY, 60, snapshots=("s3",), sample="1%"),
    "verify": RunMover("j", Verb.VERIFY, 60, snapshots=("s3",)),
    "forget all": RunMover("j", Verb.FORGET, 60),
    "forget parts": RunMover("j", Verb.FORGET, 60, parts_only=True),
    "forget one": RunMover("j", Verb.FORGET, 60, snapshots=("s3",)),
}


def job(what: str, **settings: Any) -> Object:
    return build.mover(BACKUP, ACTIONS[what], REPOSITORY, Settings(**settings))


def args(what: str) -> list[str]:
    found: list[str] = job(what)["spec"]["template"]["spec"]["containers"][0]["args"]
    return found


def accepted(arguments: list[str]) -> dict[str, Any]:
    """Parsed by the command line itself; a wrong option raises."""
    command: Any = typer.main.get_command(app)
    context = command.make_context("coeval", list(arguments), resilient_parsing=True)
    rest = list(arguments)
    while hasattr(command, "resolve_command"):
        name, command, rest = command.resolve_command(context, rest)
        context = command.make_context(name, list(rest), parent=context, resilient_parsing=True)
    # Once more in earnest, for the command that it comes to.
    parsed: dict[str, Any] = command.make_context("coeval", list(rest)).params
    return parsed


@pytest.mark.parametrize("what", sorted(ACTIONS))
def test_the_command_line_is_accepted(what: str) -> None:
    parsed = accepted(args(what))
    assert parsed["repository"] == "file:///repository/prod/shop/db"
    assert str(parsed["password_file"]) == "/secrets/password"
    assert str(parsed["result"]) == "/dev/termination-log"


def test_the_probe_s_command_line_is_accepted() -> None:
    place = places.place(REPOSITORY.spec, "")
    parsed = accepted(["repo", "probe", *place.access(), "--result", movers.RESULT])
    assert parsed["repository"] == "file:///repository"


def test_a_bucket_is_reached_by_the_environment_and_no_volume() -> None:
    repository = replace(REPOSITORY, spec=BUCKET)
    found = build.mover(BACKUP, ACTIONS["copy direct"], repository, Settings())
    template = found["spec"]["template"]
    pod, (container,) = template["spec"], template["spec"]["containers"]
    assert accepted(container["args"])["repository"] == "s3://vm-backups/prod/shop/db"
    env = {each["name"]: each.get("value") or each["valueFrom"]["secretKeyRef"] for each in container["env"]}
    assert env == {
        "AWS_ACCESS_KEY_ID": {"name": "s3", "key": "AWS_ACCESS_KEY_ID", "optional": False},
        "AWS_SECRET_ACCESS_KEY": {"name": "s3", "key": "AWS_SECRET_ACCESS_KEY", "optional": False},
        "AWS_SESSION_TOKEN": {"name": "s3", "key": "AWS_SESSION_TOKEN", "optional": True},
        "AWS_ENDPOINT_URL": "https://s3.example.com:9000",
        "AWS_REGION": "eu-1",
        "AWS_CA_BUNDLE": "/certificate-authority/ca.crt",
    }
    assert {v["name"] for v in pod["volumes"]} == {"ca", "secrets", "tmp", "source"}
    assert template["metadata"]["labels"][places.NETWORK] == "object-store"
    assert places.NETWORK not in job("copy direct")["spec"]["template"]["metadata"]["labels"]


@pytest.mark.parametrize(
    ("location", "url", "environment"),
    [
        (
            {"gcs": {"bucket": "vm_backups", "credentialsSecret": {"name": "google"}}},
            "gs://vm_backups/prod/shop/db",
            {"GOOGLE_APPLICATION_CREDENTIALS": "/credentials/credentials.json"},
        ),
        (
            {
                "azure": {
                    "account": "shop",
                    "container": "vm-backups",
                    "endpoint": "http://10.0.0.9:10000/shop",
                    "credentialsSecret": {"name": "azure"},
                }
            },
            "az://vm-backups/prod/shop/db",
            {
                "AZURE_STORAGE_ACCOUNT_NAME": "shop",
                "AZURE_STORAGE_ACCOUNT_KEY": {
                    "name": "azure",
                    "key": "AZURE_STORAGE_ACCOUNT_KEY",
                    "optional": False,
                },
                "AZURE_STORAGE_ENDPOINT": "http://10.0.0.9:10000/shop",
            },
        ),
    ],
)
def test_other_object_stores_are_reached_by_what_their_clients_look_for(
    location: Object, url: str, environment: Object
) -> None:
    key = {"passwordSecret": {"name": "main-key"}}
    spec = BackupRepositorySpec.model_validate({"location": location, "encryption": key})
    found = build.mover(BACKUP, ACTIONS["copy direct"], replace(REPOSITORY, spec=spec), Settings())
    template = found["spec"]["template"]
    (container,) = template["spec"]["containers"]
    assert accepted(container["args"])["repository"] == url
    env = {each["name"]: each.get("value") or each["valueFrom"]["secretKeyRef"] for each in container["env"]}
    assert env == environment
    assert template["metadata"]["labels"][places.NETWORK] == "object-store"
    mounted = {m["name"] for m in container["volumeMounts"]} | {"source"}
    assert {v["name"] for v in template["spec"]["volumes"]} == mounted


def test_who_asks_a_driver_has_a_token_for_that_alone() -> None:
    template = job("copy asked")["spec"]["template"]
    (container,) = template["spec"]["containers"]
    assert args("copy asked")[-17:] == [
        *("--parent", "s0", "--record-extents", "--changed-from", "csi-through-extents"),
        *("--metadata-address", "cbt.example.com:443", "--metadata-ca", "/changed-blocks/ca.crt"),
        *("--metadata-token-file", "/changed-blocks/token", "--snapshot-namespace", "coeval-system"),
        *("--snapshot-name", "twin", "--base-handle", "handle"),
    ]
    (volume,) = [v for v in template["spec"]["volumes"] if v["name"] == "changed-blocks"]
    token, authority = volume["projected"]["sources"]
    assert token == {"serviceAccountToken": {"path": "token", "audience": "cbt"}}
    (item,) = authority["downwardAPI"]["items"]
    key = item["fieldRef"]["fieldPath"].removeprefix("metadata.annotations['").removesuffix("']")
    assert (item["path"], template["metadata"]["annotations"][key]) == ("ca.crt", SERVICE.authority)
    assert {"name": "changed-blocks", "mountPath": "/changed-blocks", "readOnly": True} in container[
        "volumeMounts"
    ]
    assert template["metadata"]["labels"][movers.ASKS] == "asked"
    for other in ACTIONS.keys() - {"copy asked"}:
        assert movers.ASKS not in job(other)["spec"]["template"]["metadata"]["labels"]


def test_command_lines() -> None:
    tags = ["--tag", "backup=shop/b", "--tag", "backup-uid=u-1"]
    moment = ["--as-of", "2026-11-23T10:00:00Z", "--progress", "json", *tags]
    access = args("verify")[1:7]
    assert args("copy direct") == [
        *["volume", "copy", *access, "--name", "data", "--source", "/source", *moment, "--init"]
    ]
    assert args("copy image")[-2:] == ["--init", "--interim"]
    assert "/source/disk.img" in args("copy image")
    assert args("retime")[-3:] == ["--snapshot", "s1", "--compare"]
    assert args("commit")[-5:] == [
        "--forget-parts",
        "--manifest",
        "/manifests/vm.yaml",
        "--manifest",
        "/manifests/claims.yaml",
    ]
    assert "--sample" not in args("verify")
    assert args("forget all")[-2:] == ["--tag", "backup-uid=u-1"]
    assert args("forget parts")[-3:] == ["--tag", "backup-uid=u-1", "--parts-only"]
    assert args("forget one")[-2:] == ["--snapshot", "s3"]
    assert "--tag" not in args("forget one")


@pytest.mark.parametrize("what", sorted(ACTIONS))
def test_the_restricted_profile_admits_the_pod(what: str) -> None:
    pod = job(what)["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert {pod["securityContext"][k] for k in ("runAsUser", "runAsGroup", "fsGroup")} == {107}
    security = container["securityContext"]
    assert security["allowPrivilegeEscalation"] is False
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert security["readOnlyRootFilesystem"] is True
    allowed = {"persistentVolumeClaim", "secret", "configMap", "emptyDir", "projected"}
    assert all(v.keys() - {"name"} <= allowed for v in pod["volumes"])


@pytest.mark.parametrize("what", sorted(ACTIONS))
def test_a_mover_has_no_api_access_and_no_secret_in_its_environment(what: str) -> None:
    pod = job(what)["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["serviceAccountName"] == "coeval-mover"
    (container,) = pod["containers"]
    assert container["env"] == []
    assert "envFrom" not in container
    secret = next(v["secret"] for v in pod["volumes"] if "secret" in v)
    assert (secret["secretName"], secret["items"]) == ("main-key", [{"key": "pass", "path": "password"}])


def test_sources_are_read_only() -> None:
    block = job("copy direct")["spec"]["template"]["spec"]
    assert block["containers"][0]["volumeDevices"] == [{"name": "source", "devicePath": "/source"}]
    image = job("copy image")["spec"]["template"]["spec"]
    mount = next(m for m in image["containers"][0]["volumeMounts"] if m["name"] == "source")
    assert mount == {"name": "source", "mountPath": "/source", "readOnly": True}
    for pod in (block, image):
        source = next(v for v in pod["volumes"] if v["name"] == "source")
        assert source["persistentVolumeClaim"]["readOnly"] is True


def test_root_is_for_block_devices_alone_and_only_where_it_is_set() -> None:
    def user(what: str) -> tuple[int, bool]:
        context = job(what, block_mover_as_root=True)["spec"]["template"]["spec"]["securityContext"]
        return context["runAsUser"], context["runAsNonRoot"]

    assert user("copy direct") == (0, False)
    assert user("copy image") == (107, True)
    assert user("commit") == (107, True)


def test_what_retries_cannot_heal_is_not_tried_again() -> None:
    spec = job("copy direct")["spec"]
    fail, ignore = spec["podFailurePolicy"]["rules"]
    assert (fail["action"], fail["onExitCodes"]["values"]) == ("FailJob", [2, 3])
    assert (ignore["action"], ignore["onPodConditions"][0]["type"]) == ("Ignore", "DisruptionTarget")
    assert (spec["backoffLimit"], spec["activeDeadlineSeconds"]) == (3, 60)
    assert spec["template"]["spec"]["restartPolicy"] == "Never"


def test_everything_is_found_by_its_labels() -> None:
    take = TakeSnapshot("s", "root", "db-root", "snap", Moment.T1)
    content, twin = build.twin(BACKUP, MakeTwin("t", IMAGE, "h"), Settings())
    made = [
        build.snapshot(BACKUP, take),
        content,
        twin,
        build.claim(BACKUP, MakeClaim("c", "t", IMAGE, 1)),
        job("commit"),
        job("commit")["spec"]["template"],
        build.manifests(BACKUP, "m", {"metadata": {}}, []),
    ]
    for obj in made:
        meta = obj["metadata"]
        assert build.labels(BACKUP).items() <= meta["labels"].items(), obj
        assert meta["annotations"] == {"coeval.dev/backup": "shop/b"}
    owners = [obj["metadata"].get("ownerReferences") for obj in made]
    assert owners[0][0]["uid"] == "u-1"
    assert owners[1:] == [None] * 6, "an owner in another namespace would have them removed"


def test_the_twin_reads_in_the_mode_of_its_volume() -> None:
    for volume, mode in ((IMAGE, "Filesystem"), (DIRECT, "Block")):
        content, _ = build.twin(BACKUP, MakeTwin("t", volume, "h"), Settings())
        assert content["spec"]["sourceVolumeMode"] == mode
        assert build.claim(BACKUP, MakeClaim("c", "t", volume, 1))["spec"]["volumeMode"] == mode


def test_manifests_leave_this_cluster_behind() -> None:
    vm = {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachine",
        "metadata": {
            "name": "db",
            "namespace": "shop",
            "uid": "u",
            "resourceVersion": "7",
            "generation": 2,
            "creationTimestamp": "t",
            "managedFields": [{}],
            "finalizers": ["f"],
            "ownerReferences": [{}],
            "labels": {"app": "db"},
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}", "note": "x"},
        },
        "spec": {"runStrategy": "Always"},
        "status": {"ready": True},
    }
    made = build.manifests(BACKUP, "m", vm, [{"metadata": {"name": "c1"}}, {"metadata": {"name": "c2"}}])
    kept = yaml.safe_load(made["data"]["vm.yaml"])
    assert kept == {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachine",
        "metadata": {
            "name": "db",
            "namespace": "shop",
            "labels": {"app": "db"},
            "annotations": {"note": "x"},
        },
        "spec": {"runStrategy": "Always"},
    }
    assert [c["metadata"]["name"] for c in yaml.safe_load_all(made["data"]["claims.yaml"])] == ["c1", "c2"]
    assert vm["metadata"]["uid"] == "u", "the original is left alone"  # type: ignore[index]
