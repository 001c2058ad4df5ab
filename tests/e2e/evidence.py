"""What a test holds against a backup: the snapshots' own bytes, and the repository as restic reads it."""

import hashlib
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.harness import OPERATOR_NAMESPACE, CommandFailed, Kubectl, Object, command
from tests.e2e.scene import Backup, Repository
from tests.e2e.toolbox import Toolbox, toolbox
from tests.tools.restic import restic_binary


@dataclass(frozen=True)
class Kept:
    """A claim made from one of the backup's snapshots while that existed, so that its bytes outlive it."""

    volume: str
    role: str
    claim: str

    @property
    def mode(self) -> str:
        """Volume mode of the claim."""
        return "Filesystem" if self.role == "Image" else "Block"

    @property
    def path(self) -> str:
        """Where a toolbox sees the volume's content."""
        return f"/claims/{self.claim}/disk.img" if self.role == "Image" else f"/claims/{self.claim}"


def keep(backup: Backup, moment: str, *, role: str = "") -> list[Kept]:
    """Claims from the snapshots of `t1` or `t2`, of each volume (of that role), as soon as they are known."""
    volumes = backup.until_snapshots(moment, role=role)
    kept = [Kept(v["name"], v["role"], f"{backup.name}-{v['name']}-{moment}") for v in volumes]
    for volume, held in zip(volumes, kept, strict=True):
        backup.kubectl.apply(
            {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "metadata": {"name": held.claim, "namespace": backup.namespace},
                "spec": {
                    "accessModes": ["ReadWriteOnce"],
                    "volumeMode": held.mode,
                    "storageClassName": volume["storageClass"],
                    "resources": {"requests": {"storage": str(volume["sizeBytes"])}},
                    "dataSource": {
                        "apiGroup": "snapshot.storage.k8s.io",
                        "kind": "VolumeSnapshot",
                        "name": volume[moment]["snapshot"],
                    },
                },
            }
        )
    for held in kept:
        backup.kubectl(
            *("wait", "pvc", held.claim, "-n", backup.namespace),
            *("--for=jsonpath={.status.phase}=Bound", "--timeout=60s"),
        )
    return kept


def digests(kubectl: Kubectl, namespace: str, kept: list[Kept]) -> dict[str, str]:
    """SHA-256 of each volume's content, by volume; the claims are removed."""
    with toolbox(kubectl, "evidence", namespace, {held.claim: held.mode for held in kept}) as tools:
        found = {held.volume: tools.sha256(held.path) for held in kept}
    for held in kept:
        kubectl.delete("pvc", held.claim, namespace, wait=False)
    return found


@dataclass(frozen=True)
class Restic:
    """The real `restic` on a copy of a VM's repository."""

    folder: Path
    password: str

    def __call__(self, *args: str) -> str:
        """Its standard output; any error fails."""
        return command(*self._argv(*args), env=self._env(), timeout=600).stdout

    def snapshots(self) -> list[Object]:
        """All of them, oldest first."""
        found: list[Object] = json.loads(self("snapshots", "--json", "--no-lock"))
        return found

    def check(self) -> None:
        """`check --read-data`; an error or a warning about structure fails."""
        self("check", "--read-data", "--no-lock")

    def dump(self, snapshot: str, volume: str, target: Path) -> Path:
        """One disk of a snapshot, to a file."""
        with target.open("wb") as out:
            done = subprocess.run(
                self._argv("dump", "--no-lock", snapshot, f"/disks/{volume}/disk.img"),
                env=self._env(),
                stdout=out,
                stderr=subprocess.PIPE,
                text=True,
                check=False,
            )
        if done.returncode != 0:
            raise CommandFailed(f"restic dump of {volume}: {done.stderr}")
        return target

    def sha256(self, snapshot: str, volume: str) -> str:
        """Of one disk of a snapshot, however large it is."""
        argv = self._argv("dump", "--no-lock", snapshot, f"/disks/{volume}/disk.img")
        with subprocess.Popen(argv, env=self._env(), stdout=subprocess.PIPE) as dump:
            assert dump.stdout is not None
            found = hashlib.file_digest(dump.stdout, "sha256").hexdigest()  # type: ignore[arg-type]
        assert dump.returncode == 0, f"restic dump of {volume}: exit {dump.returncode}"
        return found

    def _argv(self, *args: str) -> list[str]:
        return [str(restic_binary()), "--no-cache", "-r", str(self.folder), *args]

    def _env(self) -> dict[str, str]:
        return {**os.environ, "RESTIC_PASSWORD": self.password}


@contextmanager
def repository_tools(kubectl: Kubectl, repository: Repository) -> Iterator["RepositoryReader"]:
    """A pod that has the repository's claim for as long as it is wanted."""
    name = f"reader-{repository.name}"
    with toolbox(kubectl, name, OPERATOR_NAMESPACE, {repository.claim: "Filesystem"}) as tools:
        yield RepositoryReader(repository, tools)


@dataclass(frozen=True)
class RepositoryReader:
    """Takes copies of VMs' repositories."""

    repository: Repository
    tools: Toolbox

    def copy(self, namespace: str, machine: str, target: Path) -> Restic:
        """The VM's repository as it is now."""
        folder = self.tools.fetch(self._folder(namespace, machine), target)
        return Restic(folder, self.repository.password)

    def exists(self, namespace: str, machine: str) -> bool:
        """Anything was ever written for the VM."""
        look = f"if test -e {self._folder(namespace, machine)}; then echo there; fi"
        return self.tools("sh", "-c", look).strip() == "there"

    def _folder(self, namespace: str, machine: str) -> str:
        return f"/claims/{self.repository.claim}/{namespace}/{machine}"


def sha256(path: Path) -> str:
    """Of a file on this machine."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
