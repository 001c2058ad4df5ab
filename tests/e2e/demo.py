"""`make demo`: the main job on a fresh machine, and the verdict in plain words.

A real Kubernetes with KubeVirt, a VM whose guest writes to two disks in turn (the image disk on one CSI
driver, the direct disk on another), one VMBackup by `kubectl apply`; then the standard `restic` reads the
repository, and the judge of the writer's sequence says what it holds.
"""

import argparse
import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import yaml

from tests.cluster import host
from tests.cluster.guest.judge import Verdict, judge
from tests.cluster.guest.vm import Machine
from tests.cluster.layout import Cluster
from tests.e2e import machines
from tests.e2e.evidence import Restic, repository_tools
from tests.e2e.harness import ROOT, Kubectl, Object
from tests.e2e.scene import TERMINAL, Backup, Repository, install_operator

MACHINE = Machine("db", "shop")
EXAMPLE = "manifests/examples/vmbackup.yaml"


def main() -> int:
    """0 where the backup is what it claims to be, judged from the data."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--cluster", default="default", help="name of the test cluster; made where it does not run"
    )
    options = parser.parse_args()
    host.ensure_packages()
    say("A real Kubernetes with KubeVirt, on plain processes")
    subprocess.run(
        [sys.executable, "-m", "tests.cluster", "up", "--name", options.cluster], cwd=ROOT, check=True
    )
    kubectl = Kubectl(Cluster(options.cluster).kubeconfig)
    say("The operator, from manifests/, and a repository on a volume")
    install_operator(kubectl)
    kubectl_says(kubectl, "apply", "-f", "manifests/examples/repository.yaml")
    kubectl_says(kubectl, "wait", "backuprepository", "main", "--for=condition=Ready", "--timeout=2m")
    say("A VM whose guest writes 1, 2, 3 … to one disk and then the other, each time durable")
    machines.namespace(kubectl, MACHINE.namespace)
    machines.create(kubectl, MACHINE)
    kubectl_says(kubectl, "get", "vm,pvc", "-n", MACHINE.namespace)
    with tempfile.TemporaryDirectory(prefix="coeval-demo-") as folder:
        return act(kubectl, Path(folder))


def act(kubectl: Kubectl, folder: Path) -> int:
    """The backup itself, and the judgement."""
    backup = Backup(kubectl, "db-first", MACHINE.namespace)
    say("One backup: every disk as of the same moment")
    if kubectl.get("vmbackup", backup.name, backup.namespace) is not None:
        kubectl_says(kubectl, "delete", "vmbackup", backup.name, "-n", backup.namespace)
    print(f"$ cat {EXAMPLE}\n{(ROOT / EXAMPLE).read_text()}")
    kubectl_says(kubectl, "apply", "-f", EXAMPLE)
    with repository_tools(kubectl, example_repository()) as reader:
        interim: Restic | None = None
        seen: Object = {}
        for seen in follow(backup):
            if seen["status"]["phase"] == "Reconciling" and interim is None:
                interim = reader.copy(MACHINE.namespace, MACHINE.name, folder / "interim")
        if seen["status"]["phase"] != "Completed" or interim is None:
            kubectl_says(kubectl, "describe", "vmbackup", backup.name, "-n", backup.namespace)
            return 1
        kubectl_says(kubectl, "get", "vmbackup", "-n", backup.namespace)
        committed = reader.copy(MACHINE.namespace, MACHINE.name, folder / "committed")
    return verdict(seen, interim, committed, folder)


def example_repository() -> Repository:
    """What the example makes."""
    documents = list(yaml.safe_load_all((ROOT / "manifests/examples/repository.yaml").read_text()))
    claim, secret, repository = documents
    return Repository(
        repository["metadata"]["name"], claim["metadata"]["name"], secret["stringData"]["password"]
    )


def follow(backup: Backup) -> Iterator[Object]:
    """Each state of the backup as it comes, and a line for what changed."""
    last = ""
    while True:
        seen = backup.now()
        status = seen.get("status", {})
        progress = status.get("progress") or {}
        line = f"{status.get('phase', 'Pending'):<15} {progress.get('percent', 0):>3} %"
        if rate := progress.get("bytesPerSecond"):
            line += f"  {rate / 1e6:.0f} MB/s"
        if line != last:
            print(f"  {line}", flush=True)
            last = line
        if status:
            yield seen
        if status.get("phase") in TERMINAL:
            return
        time.sleep(0.25)


def verdict(seen: Object, interim: Restic, committed: Restic, folder: Path) -> int:
    """What the data itself says, read by restic and by the judge."""
    status = seen["status"]
    say("What restic says of the repository")
    committed.check()
    print("  restic check --read-data: no errors")
    entry = status["repository"]["snapshotID"]
    tags = next(s["tags"] for s in committed.snapshots() if s["id"] == entry)
    print(f"  restic snapshots: {entry[:8]}  {'  '.join(tags)}")
    disks = {
        v["name"]: committed.dump(entry, v["name"], folder / f"{v['name']}.img") for v in status["volumes"]
    }
    later = dict(disks)
    for volume in status["volumes"]:
        if volume["role"] == "Image":
            target = folder / f"{volume['name']}-t2.img"
            later[volume["name"]] = interim.dump(volume["copy"]["snapshotID"], volume["name"], target)
    before, after = judge(later), judge(disks)
    say("What the guest's own sequence says")
    print(f"  the copy from T2 alone:   {loud(before)}")
    print(f"  the committed backup:     {loud(after)}")
    consistency = status["consistency"]
    print(
        f"\n  T1 = {status['pointInTime']}, {consistency['achieved']}-consistent by {consistency['method']}, "
        f"proven: {consistency['proven']}"
    )
    return 0 if after.consistent and not before.consistent else 1


def loud(found: Verdict) -> str:
    """The judge's sentence, its verdict in capitals."""
    verdict, _, rest = found.sentence.partition(" ")
    return f"{verdict.upper()} {rest}"


def say(title: str) -> None:
    """A heading."""
    print(f"\n== {title}", flush=True)


def kubectl_says(kubectl: Kubectl, *args: str) -> None:
    """A kubectl command as a user types it, and its answer."""
    print(f"$ kubectl {' '.join(args)}\n{kubectl(*args)}", flush=True)


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        sys.exit(main())
