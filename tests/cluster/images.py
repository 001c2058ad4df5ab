"""OCI images without a container engine: a Debian root, layers on it, streamed into containerd.

The shipped Dockerfile is the description: ENV, USER, WORKDIR and ENTRYPOINT are read from it, and both
install what image/packages.txt lists. Layers are cached by what they are made of, so a change of our code
builds only the last one.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import tomllib
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from tests.cluster import processes, services
from tests.cluster.build import locked, run_reporting, say
from tests.cluster.config import PAUSE_IMAGE
from tests.cluster.layout import Cluster
from tests.cluster.paths import REPOSITORY, cache

OCI = "application/vnd.oci"
CTR = ("ctr", "--namespace=k8s.io")
COEVAL_IMAGE = "localhost/coeval:dev"
SUITE = "trixie"
MIRROR = "http://deb.debian.org/debian"
PYTHON = "3.13"
"""Of the suite."""
INSTALL = "opt/coeval"
PACKAGES = REPOSITORY / "image" / "packages.txt"
LAUNCHER = REPOSITORY / "image" / "coeval"
DOCKERFILE = REPOSITORY / "Dockerfile"
PLATFORMS = ("manylinux2014_x86_64", *(f"manylinux_2_{minor}_x86_64" for minor in range(17, 42)))
"""Wheels that the suite's libc (2.41) can load."""


class ImageFailed(Exception):
    """An image could not be made or imported; the message ends with the program's words."""


@dataclass(frozen=True)
class Image:
    """A name, layers from the lowest up (tar files), and the `config` of the OCI image configuration."""

    name: str
    layers: tuple[Path, ...]
    config: dict[str, Any]


def load_all(cluster: Cluster) -> None:
    """Imports what every cluster needs."""
    for image in (pause_image(), coeval_image()):
        load(cluster, image)


def load(cluster: Cluster, image: Image) -> None:
    """Imports the image into the cluster's containerd, replacing one of the same name.

    Layers that are there are not sent again: a change of our code takes seconds.
    """
    pid = processes.init_of(cluster)
    if pid is None:
        raise ImageFailed(f"cluster {cluster.name} is down; python -m tests.cluster up --name {cluster.name}")
    env = services.environment(cluster)
    listing = processes.enter(pid, *CTR, "content", "ls", "--quiet")
    there = subprocess.run(listing, env=env, check=True, capture_output=True, text=True).stdout.split()
    with tempfile.TemporaryFile() as said:
        command = processes.enter(pid, *CTR, "images", "import", "-")
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=said, stderr=said, env=env)
        assert process.stdin is not None
        try:
            with process.stdin as stream:
                write_archive(image, stream, leave_out=there)
        except BrokenPipeError:
            pass  # it says why below
        if process.wait():
            said.seek(0)
            raise ImageFailed(f"import of {image.name}: {said.read().decode(errors='replace').strip()}")


def write_archive(image: Image, stream: IO[bytes], leave_out: Iterable[str] = ()) -> None:
    """An OCI image layout in a tar, without the layers of the digests to `leave_out`."""
    digests = [_digest_of(layer) for layer in image.layers]
    config = _document(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": image.config,
            "rootfs": {"type": "layers", "diff_ids": digests},
        }
    )
    layers = [
        _descriptor("image.layer.v1.tar", digest, layer.stat().st_size)
        for digest, layer in zip(digests, image.layers, strict=True)
    ]
    manifest = _document(
        {
            "schemaVersion": 2,
            "mediaType": f"{OCI}.image.manifest.v1+json",
            "config": _descriptor("image.config.v1+json", _digest(config), len(config)),
            "layers": layers,
        }
    )
    named = _descriptor("image.manifest.v1+json", _digest(manifest), len(manifest))
    named["annotations"] = {"io.containerd.image.name": image.name}
    documents = {
        "oci-layout": _document({"imageLayoutVersion": "1.0.0"}),
        "index.json": _document({"schemaVersion": 2, "manifests": [named]}),
        _blob(_digest(manifest)): manifest,
        _blob(_digest(config)): config,
    }
    known = set(leave_out)
    with tarfile.open(fileobj=stream, mode="w|") as archive:
        for member, data in documents.items():
            archive.addfile(_member(member, len(data)), io.BytesIO(data))
        for digest, layer in zip(digests, image.layers, strict=True):
            if digest not in known:
                known.add(digest)
                with layer.open("rb") as content:
                    archive.addfile(_member(_blob(digest), layer.stat().st_size), content)


def _document(content: dict[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True).encode()


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _blob(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/")


def _descriptor(kind: str, digest: str, size: int) -> dict[str, Any]:
    return {"mediaType": f"{OCI}.{kind}", "digest": digest, "size": size}


def _member(name: str, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size = size
    return member


def pause_image() -> Image:
    """A static program that sleeps until it is told to end: it holds a pod's namespaces."""
    source = Path(__file__).with_name("pause.c")

    def make(root: Path) -> None:
        _run("gcc", "-static", "-Os", "-s", "-o", str(root / "pause"), str(source))

    layer = cached_layer("pause", [source.read_bytes()], make)
    return Image(PAUSE_IMAGE, (layer,), {"Entrypoint": ["/pause"]})


def coeval_image() -> Image:
    """Operator and mover: Debian, locked dependencies, our wheel."""
    base = debian_root("coeval", debian_packages())
    layers = (base / "layer.tar", _dependencies(base / "root"), _code(base / "root"))
    return Image(COEVAL_IMAGE, layers, dockerfile_config(DOCKERFILE.read_text()))


def debian_packages() -> list[str]:
    """The lines of image/packages.txt without comments."""
    return [line for line in PACKAGES.read_text().split("\n") if line and not line.startswith("#")]


def debian_root(name: str, packages: Iterable[str], estimate: int = 90) -> Path:
    """A folder with `root` (a minimal Debian with the packages) and `layer.tar` (the same); cached."""
    wanted = sorted(packages)
    digest = hashlib.sha256("\0".join((SUITE, MIRROR, *wanted)).encode()).hexdigest()[:16]
    final = cache() / "images" / f"root-{name}-{digest}"
    with locked(cache() / "images" / f".root-{name}.lock", f"another build of the {name} root"):
        if not final.is_dir():
            with _fresh(final) as new:
                command = ["mmdebstrap", "--variant=minbase", f"--include={','.join(wanted)}"]
                command += [
                    f"--dpkgopt=path-exclude=/usr/share/{each}/*" for each in ("doc", "man", "locale")
                ]
                root = new.path / "root"
                command += [SUITE, str(root), MIRROR]
                run_reporting(command, f"assembling Debian {SUITE} for {name}", estimate, Path("/"))
                write_layer(root, new.path / "layer.tar")
    return final


def cached_layer(name: str, ingredients: Iterable[bytes], make: Callable[[Path], None]) -> Path:
    """A layer whose content `make` puts into an empty folder, unless one of the same ingredients is there.

    Only the newest of each name is kept besides those younger than a day.
    """
    digest = hashlib.sha256()
    for ingredient in ingredients:
        digest.update(hashlib.sha256(ingredient).digest())
    final = cache() / "images" / f"{name}-{digest.hexdigest()[:16]}"
    with locked(cache() / "images" / f".{name}.lock", f"another build of layer {name}"):
        if not final.is_dir():
            with _fresh(final) as new:
                root = new.path / "root"
                root.mkdir()
                make(root)
                write_layer(root, new.path / "layer.tar")
                shutil.rmtree(root)
            for old in final.parent.glob(f"{name}-*"):
                if old != final and time.time() - old.stat().st_mtime > 86400:
                    shutil.rmtree(old)
    return final / "layer.tar"


class _fresh:
    """A temporary folder that takes its name when everything in it is done."""

    def __init__(self, final: Path) -> None:
        self.final = final
        self.path = final.with_name(f".tmp-{final.name}")

    def __enter__(self) -> _fresh:
        if self.path.exists():
            shutil.rmtree(self.path)  # of a builder that died: the caller holds the lock
        self.path.mkdir(parents=True)
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.path.rename(self.final)


def write_layer(root: Path, layer: Path) -> None:
    """A layer of a folder, the same bytes for the same content; owners, modes and capabilities are kept."""
    _run(
        "tar", "--create", f"--file={layer}", f"--directory={root}",
        "--sort=name", "--mtime=@0", "--numeric-owner", "--format=pax",
        "--pax-option=delete=atime,delete=ctime", "--xattrs", "--xattrs-include=*",
        "--exclude=./dev/*", "--exclude=./proc/*", "--exclude=./sys/*", ".",
    )  # fmt: skip
    with layer.open("rb") as content:
        layer.with_suffix(".sha256").write_text(hashlib.file_digest(content, "sha256").hexdigest())


def _digest_of(layer: Path) -> str:
    return "sha256:" + layer.with_suffix(".sha256").read_text()


def _dependencies(debian: Path) -> Path:
    """What pyproject.toml asks for, in the versions of the lock file, as wheels for the image's Python."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    lock = REPOSITORY / "requirements.lock"

    def make(root: Path) -> None:
        platforms = [f"--platform={platform}" for platform in PLATFORMS]
        command = [
            sys.executable, "-m", "pip", "install", "--quiet", f"--target={root / INSTALL}", "--no-compile",
            f"--python-version={PYTHON}", "--implementation=cp", *platforms, "--only-binary=:all:",
            f"--constraint={lock}", *project["dependencies"],
        ]  # fmt: skip
        run_reporting(command, "installing the image's dependencies", 60, REPOSITORY)
        # Scripts in there name this machine's interpreter.
        shutil.rmtree(root / INSTALL / "bin", ignore_errors=True)
        _compile(debian, root)

    return cached_layer(
        "dependencies", [lock.read_bytes(), json.dumps(project["dependencies"]).encode()], make
    )


def _code(debian: Path) -> Path:
    """Our wheel and the launcher."""
    operator = REPOSITORY / "operator"
    files = [
        path for path in sorted(operator.rglob("*")) if path.is_file() and "__pycache__" not in path.parts
    ]
    files += [REPOSITORY / "pyproject.toml", REPOSITORY / "LICENSE", LAUNCHER]

    def make(root: Path) -> None:
        with tempfile.TemporaryDirectory() as wheels:
            _run(
                sys.executable,
                "-m",
                "hatchling",
                "build",
                "--target=wheel",
                f"--directory={wheels}",
                cwd=REPOSITORY,
            )
            with zipfile.ZipFile(next(Path(wheels).glob("*.whl"))) as wheel:
                wheel.extractall(root / INSTALL)  # noqa: S202  (we have just made it)
        _compile(debian, root)
        launcher = root / "usr" / "local" / "bin" / LAUNCHER.name
        launcher.parent.mkdir(parents=True)
        shutil.copyfile(LAUNCHER, launcher)
        launcher.chmod(0o755)

    ingredients = [f"{path.relative_to(REPOSITORY)}\0".encode() + path.read_bytes() for path in files]
    return cached_layer("code", ingredients, make)


def _compile(debian: Path, root: Path) -> None:
    """Bytecode by the image's own Python: movers start faster, and their root file system is read-only."""
    script = (
        f'mount --bind "$0/opt" "$1/opt" && exec chroot "$1" python3 -m compileall -q -x lib2to3 '
        f"--invalidation-mode unchecked-hash /{INSTALL}"
    )
    _run("unshare", "--mount", "--propagation=private", "sh", "-c", script, str(root), str(debian))


def dockerfile_config(text: str) -> dict[str, Any]:
    """The image configuration that the last stage of a Dockerfile describes.

    Raises ImageFailed on an instruction that would change it and that is not understood here.
    """
    config: dict[str, Any] = {}
    environment: list[str] = []
    for line in re.sub(r"\\\n", " ", text).splitlines():
        word, _, rest = line.strip().partition(" ")
        match word.upper():
            case "FROM":
                config, environment = {}, []
            case "ENV":
                environment += shlex.split(rest)
            case "ENTRYPOINT":
                config["Entrypoint"] = json.loads(rest)
            case "USER":
                config["User"] = rest.strip()
            case "WORKDIR":
                config["WorkingDir"] = rest.strip()
            case "" | "#" | "RUN" | "COPY":
                pass
            case other if not other.startswith("#"):
                raise ImageFailed(f"Dockerfile: {other} is unknown to tests/cluster/images.py; add it there")
    return {**config, "Env": environment}


def _run(*command: str, cwd: Path | None = None) -> None:
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=cwd, env={**os.environ, "LC_ALL": "C.UTF-8"}
    )
    if done.returncode:
        raise ImageFailed(f"{' '.join(command)}: {(done.stderr or done.stdout).strip()}")


def refresh(cluster: Cluster) -> None:
    """The development loop: builds localhost/coeval:dev from the tree as it is now and imports it."""
    started = time.monotonic()
    load(cluster, coeval_image())
    seconds = time.monotonic() - started
    say(f"{COEVAL_IMAGE} is in cluster {cluster.name} after {seconds:.1f} s; start its pods anew")
