"""README and docs are true: the demo runs, and so does every command that they show."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.cluster.guest.vm import Machine
from tests.cluster.layout import Cluster
from tests.e2e.demo import example_repository
from tests.e2e.evidence import repository_tools, sha256
from tests.e2e.harness import ROOT, Kubectl
from tests.e2e.toolbox import toolbox
from tests.tools.pages import blocks
from tests.tools.restic import restic_binary

pytestmark = pytest.mark.kubevirt

# The image is the one difference between the two.
OVERLAY = ("manifests/overlays/default", "manifests/overlays/test")
PAGES = (
    "install",
    "restore-by-hand",
    "restore-in-the-cluster",
    "back-up-a-vm",  # its last command deletes the backup that others read
    "consistency",
    "changed-blocks",
    "operate",
    "when-it-fails",
    "security",
    "development",
    "benchmarks",
)
# Needs no cluster, but an S3 server: tests/unit/repository/test_object_store.py runs it.
RUN_ELSEWHERE = {"store-in-s3"}
REASONS_NOT_RUN = {"needs a container engine", "the demo's test and CI run these"}


@pytest.fixture(scope="module")
def shell(cluster: Cluster, kubectl: Kubectl, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of somebody who reads the pages."""
    folder = tmp_path_factory.mktemp("docs")
    (folder / "password").write_text(example_repository().password)
    with repository_tools(kubectl, example_repository()) as reader:
        repository = reader.copy("shop", "db", folder / "repository").folder
    programs = [ROOT / ".venv/bin", restic_binary().parent, cluster.bin]
    return {
        **os.environ,
        "KUBECONFIG": str(kubectl.kubeconfig),
        "PATH": os.pathsep.join([*map(str, programs), os.environ["PATH"]]),
        "REPOSITORY": str(repository),
        "PASSWORD_FILE": str(folder / "password"),
        "OUT": str(folder),
    }


def test_demo(cluster: Cluster, writing_vm: Machine) -> None:
    done = subprocess.run(
        ["make", "demo", f"CLUSTER={cluster.name}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"the copy from T2 alone: +BROKEN by [0-9]+ steps", done.stdout), done.stdout
    assert re.search(r"the committed backup: +CONSISTENT", done.stdout), done.stdout


@pytest.mark.parametrize("page", ["README.md", *(f"docs/{name}.md" for name in PAGES)])
def test_commands_of(page: str, shell: dict[str, str]) -> None:
    for text, reason in blocks(ROOT / page):
        if reason:
            assert reason in REASONS_NOT_RUN
            continue
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text.replace(*OVERLAY)],
            cwd=ROOT,
            env=shell,
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        assert done.returncode == 0, f"{page}: {text}\n{done.stdout}{done.stderr}"


def test_what_was_restored_in_the_cluster_is_what_restic_reads(
    kubectl: Kubectl, shell: dict[str, str]
) -> None:
    """Both pages have run: restore-by-hand dumped the same disk of the same backup by restic."""
    dumped = Path(shell["OUT"]) / "b0.img"
    with toolbox(kubectl, "restored", "shop", {"restored-b0": "Block"}) as tools:
        size = dumped.stat().st_size
        found = tools("sh", "-c", f"head --bytes={size} /claims/restored-b0 | sha256sum").split()[0]
    assert found == sha256(dumped)


def test_every_page_is_run() -> None:
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")} - {"README"}
    assert pages == set(PAGES) | RUN_ELSEWHERE
