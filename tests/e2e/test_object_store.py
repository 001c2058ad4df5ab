"""A repository in a bucket: the same backup, by TLS under a CA that only the BackupRepository names."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.cluster import processes
from tests.cluster.guest.vm import Machine
from tests.cluster.layout import NODE_IP, Cluster
from tests.e2e.evidence import Restic, digests, keep, sha256
from tests.e2e.harness import OPERATOR_NAMESPACE, ROOT, Kubectl, Object, condition
from tests.e2e.scene import leftovers, start_backup
from tests.e2e.test_failures import assert_failed
from tests.e2e.test_one_moment import disks, names
from tests.e2e.toolbox import toolbox
from tests.tools.azurite import Azurite, azurite, installable
from tests.tools.servers import ACCESS_KEY, SECRET_KEY, S3Server, versitygw

pytestmark = pytest.mark.kubevirt

NAME = "in-a-bucket"
PASSWORD = "change-me-before-the-first-backup"
EXAMPLE = ROOT / "manifests/examples/repository-s3.yaml"


@pytest.fixture(scope="module")
def server(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """On the node's address, where pods reach it."""
    init = processes.init_of(cluster)
    assert init is not None
    folder = tmp_path_factory.mktemp("s3")
    with versitygw(folder, tls=True, within=processes.on_network(init), address=NODE_IP) as running:
        yield running


@pytest.fixture(scope="module")
def bucket(kubectl: Kubectl, operator: None, server: S3Server) -> str:
    """A Ready BackupRepository, the example with what is ours in it; the bucket's name."""
    assert server.ca is not None
    bucket = server.bucket()
    credentials, key, authority, repository = yaml.safe_load_all(EXAMPLE.read_text())
    credentials["stringData"] = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
    authority["data"]["ca.crt"] = server.ca.read_text()
    repository["metadata"]["name"] = NAME
    repository["spec"]["location"]["s3"] |= {"bucket": bucket, "endpoint": server.endpoint}
    kubectl.apply(credentials, key, authority, repository)
    kubectl("wait", "backuprepository", NAME, "--for=condition=Ready", "--timeout=120s")
    return bucket


def test_a_backup_in_a_bucket(
    kubectl: Kubectl, server: S3Server, bucket: str, stopped_vm: Machine, tmp_path: Path
) -> None:
    backup = start_backup(kubectl, stopped_vm.namespace, stopped_vm.name, NAME)
    s1 = keep(backup, "t1")
    seen = backup.completed()
    path = seen["status"]["repository"]["path"]
    assert path == f"prod/{stopped_vm.namespace}/{stopped_vm.name}"
    assert server.folder is not None
    # versitygw keeps objects as files, so restic reads them past every S3 client.
    restic = Restic(server.folder / bucket / path, PASSWORD)
    restic.check()
    files = disks(restic, seen["status"]["repository"]["snapshotID"], names(seen), tmp_path / "committed")
    assert {name: sha256(file) for name, file in files.items()} == digests(kubectl, backup.namespace, s1)
    assert leftovers(kubectl, seen["metadata"]["uid"]) == []
    status = str(seen["status"]) + str(kubectl.get("backuprepository", NAME))
    assert SECRET_KEY not in status


@pytest.mark.skipif(not installable(), reason="Azurite needs node and npm")
def test_a_backup_in_a_container_of_azure(
    kubectl: Kubectl, cluster: Cluster, operator: None, stopped_vm: Machine, tmp_path: Path
) -> None:
    """restic cannot be sent to another address than Azure's, so a pod restores by our own command."""
    init = processes.init_of(cluster)
    assert init is not None
    with azurite(tmp_path, within=processes.on_network(init), address=NODE_IP) as server:
        container = server.bucket()
        kubectl.apply(*in_azure(server, container))
        kubectl("wait", "backuprepository", "in-azure", "--for=condition=Ready", "--timeout=120s")
        backup = start_backup(kubectl, stopped_vm.namespace, stopped_vm.name, "in-azure")
        s1 = keep(backup, "t1")
        seen = backup.completed()
        repository = seen["status"]["repository"]
        access = [
            *("--repository", f"az://{container}/{repository['path']}"),
            "--password-file",
            "/tmp/password",
        ]
        environment = [f"{name}={value}" for name, value in server.environment().items()]
        with toolbox(kubectl, "restorer", stopped_vm.namespace, {}) as tools:
            tools("sh", "-c", f"echo {PASSWORD} > /tmp/password")
            found = {}
            for name in names(seen):
                what = ("--snapshot", repository["snapshotID"], "--name", name, "--target", f"/tmp/{name}")
                tools("env", *environment, "coeval", "volume", "restore", *access, *what)
                found[name] = tools.sha256(f"/tmp/{name}")
        assert found == digests(kubectl, backup.namespace, s1)
    kubectl.delete("backuprepository", "in-azure")


def in_azure(server: Azurite, container: str) -> list[Object]:
    """A BackupRepository in a container, and its Secrets."""

    def secret(name: str, **data: str) -> Object:
        meta = {"name": name, "namespace": OPERATOR_NAMESPACE}
        return {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "stringData": data}

    account, key = (server.environment()[f"AZURE_STORAGE_ACCOUNT_{word}"] for word in ("NAME", "KEY"))
    where = {
        "account": account,
        "container": container,
        "endpoint": server.endpoint,
        "prefix": "prod/",
        "credentialsSecret": {"name": "azure"},
    }
    encryption = {"passwordSecret": {"name": "azure-key"}}
    return [
        secret("azure", AZURE_STORAGE_ACCOUNT_KEY=key),
        secret("azure-key", password=PASSWORD),
        {
            "apiVersion": "coeval.dev/v1alpha1",
            "kind": "BackupRepository",
            "metadata": {"name": "in-azure"},
            "spec": {"location": {"azure": where}, "encryption": encryption},
        },
    ]


def test_credentials_that_are_refused(kubectl: Kubectl, bucket: str, stopped_vm: Machine) -> None:
    """Runs last here: they stay wrong."""
    wrong = '{"stringData": {"AWS_SECRET_ACCESS_KEY": "changed-on-the-server"}}'
    kubectl("patch", "secret", "s3", "-n", OPERATOR_NAMESPACE, "--type=merge", "-p", wrong)
    backup = start_backup(kubectl, stopped_vm.namespace, stopped_vm.name, NAME)
    seen = assert_failed(backup, "CredentialsRefused", bucket, "credentialsSecret")
    assert "changed-on-the-server" not in str(seen)
    assert condition(seen, "Stalled")["status"] == "True"
