"""The manifests that restore inside the cluster: narrow as a mover, true to the example, and runnable."""

from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from coeval.api.v1alpha1.backuprepository import BackupRepositorySpec
from coeval.cli.main import app
from coeval.controllers import movers, places
from coeval.controllers.settings import Settings

from tests.tools.pages import blocks

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/restore-in-the-cluster.md"
FILES = ("restore", "repository-shell")
Object = dict[str, Any]


def example(name: str) -> list[Object]:
    return list(yaml.safe_load_all((ROOT / f"manifests/examples/{name}.yaml").read_text()))


def pod_of(name: str) -> Object:
    found: Object = example(name)[-1]["spec"]
    return found.get("template", {}).get("spec", found)  # type: ignore[no-any-return]


def mover() -> Object:
    """The pod of a mover that works on the same repository."""
    spec = BackupRepositorySpec.model_validate(example("repository")[-1]["spec"])
    work = movers.Work(args=[], place=places.place(spec, "shop/db"), deadline=1)
    found: Object = movers.job({"name": "m"}, work, Settings())["spec"]["template"]["spec"]
    return found


@pytest.mark.parametrize("name", FILES)
def test_it_is_as_narrow_as_a_mover_and_reaches_the_same(name: str) -> None:
    pod, other = pod_of(name), mover()
    for field in ("securityContext", "automountServiceAccountToken", "enableServiceLinks", "restartPolicy"):
        assert pod[field] == other[field], field
    [theirs] = other["containers"]
    for container in pod["containers"]:
        assert container["securityContext"] == theirs["securityContext"]
        assert [m for m in theirs["volumeMounts"] if m not in container["volumeMounts"]] == []
    assert [v for v in other["volumes"] if v not in pod["volumes"]] == []
    assert example(name)[-1]["metadata"]["namespace"] == Settings().namespace


@pytest.mark.parametrize("name", FILES)
def test_every_volume_is_there_and_used(name: str) -> None:
    pod = pod_of(name)
    used = {m["name"] for c in pod["containers"] for m in [*c["volumeMounts"], *c.get("volumeDevices", [])]}
    assert used == {v["name"] for v in pod["volumes"]}


def test_the_job_says_what_coeval_understands() -> None:
    restore = typer.main.get_command(app).commands["volume"].commands["restore"]  # type: ignore[attr-defined]
    claims = {d["metadata"]["name"]: d["spec"]["volumeMode"] for d in example("restore")[:-1]}
    pod = pod_of("restore")
    sources = {v["name"]: v.get("persistentVolumeClaim", {}).get("claimName") for v in pod["volumes"]}
    for container in pod["containers"]:
        disk, args = container["name"], container["args"]
        assert args[:2] == ["volume", "restore"]
        given = restore.make_context("restore", args[2:]).params
        assert given["name"] == disk
        assert given["repository"] == mover_url()
        assert str(given["password_file"]) == places.PASSWORD
        if claims[sources[disk]] == "Block":
            assert container["volumeDevices"] == [{"name": disk, "devicePath": str(given["target"])}]
        else:
            assert {"name": disk, "mountPath": str(given["target"].parent)} in container["volumeMounts"]
            assert given["target"].name == "disk.img"


def mover_url() -> str:
    spec = BackupRepositorySpec.model_validate(example("repository")[-1]["spec"])
    return places.place(spec, "shop/db").url


def test_the_page_puts_the_operators_image_into_every_container() -> None:
    commands = "\n".join(text for text, _ in blocks(PAGE))
    assert 'sed "s|image: coeval$|image: $IMAGE|"' in commands
    for name in FILES:
        path = f"manifests/examples/{name}.yaml"
        assert path in commands
        lines = (ROOT / path).read_text().splitlines()
        assert len([x for x in lines if x.endswith("image: coeval")]) == len(pod_of(name)["containers"])
    for claim in example("restore")[:-1]:
        assert claim["metadata"]["name"].removeprefix("restored-") in commands
