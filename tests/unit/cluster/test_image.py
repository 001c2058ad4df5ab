"""The Dockerfile and the image that tests assemble are one description."""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import images
from tests.cluster.images import (
    DOCKERFILE,
    INSTALL,
    LAUNCHER,
    PACKAGES,
    Image,
    ImageFailed,
    dockerfile_config,
)
from tests.cluster.paths import REPOSITORY

TEXT = DOCKERFILE.read_text()
STAGES = re.split(r"(?m)^FROM ", TEXT)[1:]


def test_the_assembled_image_runs_as_the_shipped_one() -> None:
    config = dockerfile_config(TEXT)
    environment = dict(entry.split("=", 1) for entry in config["Env"])
    assert config["Entrypoint"] == ["coeval"]
    assert config["User"] == "107:107"
    assert environment["PYTHONPATH"] == f"/{INSTALL}"
    assert "/usr/local/bin" in environment["PATH"].split(":"), "the launcher lies there"


def test_the_shipped_image_has_what_the_assembled_one_has() -> None:
    build, final = STAGES
    assert final.startswith(f"debian:{images.SUITE}-slim"), "the suite decides Python's version"
    assert f"COPY {PACKAGES.relative_to(REPOSITORY)} " in final, "one list of packages"
    assert f"COPY --chmod=755 {LAUNCHER.relative_to(REPOSITORY)} /usr/local/bin/coeval" in final
    assert f"COPY --from=build /{INSTALL} /{INSTALL}" in final
    assert f"--target /{INSTALL}" in build
    assert "--constraint requirements.lock" in build, "the versions of the lock file"


def test_the_package_list_is_one_package_a_line() -> None:
    packages = images.debian_packages()
    assert "python3" in packages
    assert all(re.fullmatch(r"[a-z0-9][a-z0-9+.-]+", package) for package in packages)


def test_the_launcher_calls_the_console_script() -> None:
    scripts = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["scripts"]
    module, function = scripts["coeval"].split(":")
    text = LAUNCHER.read_text()
    assert text.startswith("#!/usr/bin/python3\n")
    assert f"from {module} import {function}" in text


def test_an_earlier_stage_does_not_leak_and_lines_are_joined() -> None:
    text = (
        'FROM a AS one\nENV X=1\nUSER 0\nFROM b\n# USER 5\nENV A=1 \\\n  B="two words"\nENTRYPOINT ["run"]\n'
    )
    assert dockerfile_config(text) == {"Entrypoint": ["run"], "Env": ["A=1", "B=two words"]}


def test_an_unknown_instruction_is_refused() -> None:
    with pytest.raises(ImageFailed, match="VOLUME"):
        dockerfile_config("FROM a\nVOLUME /data\n")


def unpacked(image: Image, leave_out: list[str]) -> dict[str, bytes]:
    stream = io.BytesIO()
    images.write_archive(image, stream, leave_out)
    with tarfile.open(fileobj=io.BytesIO(stream.getvalue())) as archive:
        return {member.name: (archive.extractfile(member) or io.BytesIO()).read() for member in archive}


def test_an_archive_names_everything_by_its_content(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "file").write_text("content")
    layer = tmp_path / "layer.tar"
    images.write_layer(root, layer)
    files = unpacked(Image("localhost/x:1", (layer,), {"User": "1"}), [])
    for name, data in files.items():
        if name.startswith("blobs/"):
            assert name == f"blobs/sha256/{hashlib.sha256(data).hexdigest()}"

    def blob(descriptor: dict[str, Any]) -> bytes:
        data = files["blobs/" + descriptor["digest"].replace(":", "/")]
        assert len(data) == descriptor["size"]
        return data

    (named,) = json.loads(files["index.json"])["manifests"]
    assert named["annotations"] == {"io.containerd.image.name": "localhost/x:1"}
    manifest = json.loads(blob(named))
    config = json.loads(blob(manifest["config"]))
    assert config["config"] == {"User": "1"}
    assert [blob(each) for each in manifest["layers"]] == [layer.read_bytes()]
    digests = [each["digest"] for each in manifest["layers"]]
    assert config["rootfs"]["diff_ids"] == digests, "layers are not compressed"
    spared = unpacked(Image("localhost/x:1", (layer,), {"User": "1"}), digests)
    assert set(files) - set(spared) == {"blobs/" + digests[0].replace(":", "/")}


def test_a_layer_is_the_same_for_the_same_content(tmp_path: Path) -> None:
    digests = []
    for number in range(2):
        root = tmp_path / str(number)
        root.mkdir()
        for name in ("b", "a") if number else ("a", "b"):
            (root / name).write_text(name)
        images.write_layer(root, tmp_path / f"{number}.tar")
        digests.append((tmp_path / f"{number}.sha256").read_text())
    assert digests[0] == digests[1]
