"""What is compared: ours as the command line, and the others, each with encryption and fast zstd on."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from abc import ABC, abstractmethod
from pathlib import Path

from tests.bench.images import Volume, Words
from tests.bench.measure import Command
from tests.cluster.paths import cache
from tests.tools.go_programs import go_program, pinned_version
from tests.tools.restic import restic_binary

PASSWORD = "bench"
OURS = "coeval"
BORG_VERSION = "2.0.0b23"
"""The newest that builds with the OpenSSL (3.0) of Debian 12; later ones need 3.2."""
RUSTIC_VERSION = "0.11.4"


class Missing(Exception):
    """A rival cannot be had on this machine; the message says why."""


class Tool(ABC):
    """A program with a repository of its own in `folder`. Moments are those of Volume."""

    name: str

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self.repository = folder / "repository"
        self.password_file = folder / "password"
        self.password_file.write_text(f"{PASSWORD}\n")
        self.snapshots: dict[str, str] = {}

    @classmethod
    @abstractmethod
    def version(cls) -> str:
        """Give the version, building the program if need be. Raises Missing."""

    @abstractmethod
    def setup(self) -> list[Command]:
        """Give the calls that make a repository; not measured."""

    @abstractmethod
    def backup(self, volume: Volume, moment: str) -> Command:
        """Back up an image, reading all of it."""

    def backup_ranges(self, volume: Volume, moment: str) -> Command | None:
        """Back up an image of which is known where it differs from the first; None if it cannot."""
        return None

    @abstractmethod
    def restore(self, volume: Volume, moment: str, target: Path) -> Command:
        """Restore to a folder; the image lies somewhere in it."""

    def note(self, moment: str, output: bytes) -> None:  # noqa: B027  (a plain copy says nothing)
        """Keep what a backup's output says for later calls."""


class Coeval(Tool):
    """Ours."""

    name = OURS

    @classmethod
    def version(cls) -> str:
        from coeval import __version__

        return __version__

    def setup(self) -> list[Command]:
        return [self._call("repo", "init")]

    def backup(self, volume: Volume, moment: str) -> Command:
        return self._copy(volume, moment)

    def backup_ranges(self, volume: Volume, moment: str) -> Command | None:
        ranges: Words = ["--parent", self.snapshots["base"], "--changed", volume.ranges(moment)]
        return self._copy(volume, moment, *ranges)

    def interim(self, volume: Volume) -> Command:
        """Copy the later moment as a thing to be retimed; not measured."""
        return self._copy(volume, "later", "--interim")

    def retime(self, volume: Volume, *, known: bool) -> Command:
        """Move the interim copy of the later moment back to the first."""
        how: Words = ["--changed", volume.ranges("later")] if known else ["--compare"]
        words: Words = [
            "--name",
            "root",
            "--snapshot",
            self.snapshots["interim"],
            "--as-of",
            "2026-01-01T00:00:00Z",
        ]
        return self._call("volume", "retime", *words, "--source", volume.image("base"), *how)

    def restore(self, volume: Volume, moment: str, target: Path) -> Command:
        words: Words = [
            "--snapshot",
            self.snapshots[moment],
            "--name",
            "root",
            "--target",
            target / "disk.img",
        ]
        return self._call("volume", "restore", *words, "--sparse")

    def note(self, moment: str, output: bytes) -> None:
        self.snapshots[moment] = json.loads(output)["snapshot"]

    def _copy(self, volume: Volume, moment: str, *more: str | Path) -> Command:
        return self._call("volume", "copy", "--name", "root", "--source", volume.image(moment), *more)

    def _call(self, group: str, verb: str, *words: str | Path) -> Command:
        access: Words = ["--repository", f"file://{self.repository}", "--password-file", self.password_file]
        return Command([sys.executable, "-m", "coeval.cli.main", group, verb, *access, *words])


class Restic(Tool):
    """restic; `--force`, since a volume's snapshot is a new device, whose times say nothing."""

    name = "restic"

    @classmethod
    def version(cls) -> str:
        restic_binary()
        return pinned_version("restic")

    def setup(self) -> list[Command]:
        return [self._call("init")]

    def backup(self, volume: Volume, moment: str) -> Command:
        return self._call("backup", "--force", volume.image(moment))

    def restore(self, volume: Volume, moment: str, target: Path) -> Command:
        return self._call("restore", self.snapshots[moment], "--target", target, "--sparse")

    def note(self, moment: str, output: bytes) -> None:
        found = re.search(rb"snapshot ([0-9a-f]{8}) saved", output)
        assert found, output
        self.snapshots[moment] = found[1].decode()

    def _call(self, *words: str | Path) -> Command:
        access: Words = ["-r", self.repository, "--password-file", self.password_file]
        return Command([restic_binary(), *access, "--cache-dir", self.folder / "cache", *words])


class Kopia(Tool):
    """kopia; one image is cut and read in parallel, as it offers."""

    name = "kopia"

    @classmethod
    def version(cls) -> str:
        go_program("kopia", "github.com/kopia/kopia")
        return pinned_version("kopia")

    def setup(self) -> list[Command]:
        return [
            self._call("repository", "create", "filesystem", "--path", self.repository, "--no-use-keyring"),
            self._call(
                *("policy", "set", "--global", "--compression", "zstd-fastest"),
                "--parallel-upload-above-size-mib=64",
            ),
        ]

    def backup(self, volume: Volume, moment: str) -> Command:
        return self._call("snapshot", "create", "--json", "--force-hash=100", volume.image(moment).parent)

    def restore(self, volume: Volume, moment: str, target: Path) -> Command:
        return self._call("snapshot", "restore", "--write-sparse-files", self.snapshots[moment], target)

    def note(self, moment: str, output: bytes) -> None:
        self.snapshots[moment] = json.loads(output)["id"]

    def _call(self, *words: str | Path) -> Command:
        environment = {
            "KOPIA_PASSWORD": PASSWORD,
            "KOPIA_CONFIG_PATH": str(self.folder / "kopia.config"),
            "KOPIA_CACHE_DIRECTORY": str(self.folder / "cache"),
            "KOPIA_LOG_DIR": str(self.folder / "log"),
            "KOPIA_CHECK_FOR_UPDATES": "false",
        }
        return Command([go_program("kopia", "github.com/kopia/kopia"), *words], environment)


class Borg(Tool):
    """borg 2, in an environment of its own. Chunks of fixed size, as it advises for block devices."""

    name = "borg"

    @classmethod
    def version(cls) -> str:
        _borg_binary()
        return BORG_VERSION

    def setup(self) -> list[Command]:
        return [self._call("repo-create", "--encryption", "aes256-ocb")]

    def backup(self, volume: Volume, moment: str) -> Command:
        return self._create(volume, moment)

    def backup_ranges(self, volume: Volume, moment: str) -> Command | None:
        mapped = self.folder / f"{moment}.map"
        mapped.write_text(_borg_map(json.loads(volume.ranges(moment).read_text())))
        return self._create(volume, moment, "--map", mapped, "--reuse-from", f"aid:{self.snapshots['base']}")

    def restore(self, volume: Volume, moment: str, target: Path) -> Command:
        return self._call("extract", "--sparse", f"aid:{self.snapshots[moment]}", cwd=target)

    def note(self, moment: str, output: bytes) -> None:
        self.snapshots[moment] = json.loads(output)["archive"]["id"]

    def _create(self, volume: Volume, moment: str, *more: str | Path) -> Command:
        how = ["--json", "-C", "zstd,1", "--files-cache=disabled", "--chunker-params=fixed,1048576"]
        return self._call("create", *how, *more, f"root-{len(self.snapshots)}", volume.image(moment))

    def _call(self, *words: str | Path, cwd: Path | None = None) -> Command:
        environment = {
            "BORG_PASSPHRASE": PASSWORD,
            "BORG_BASE_DIR": str(self.folder / "base"),
            "BORG_REPO": str(self.repository),
            "BORG_EXIT_CODES": "modern",
        }
        return Command([_borg_binary(), *words], environment, cwd)


class Rustic(Tool):
    """rustic: the restic format in Rust."""

    name = "rustic"

    @classmethod
    def version(cls) -> str:
        _rustic_binary()
        return RUSTIC_VERSION

    def setup(self) -> list[Command]:
        return [self._call("init", "--set-compression", "1")]

    def backup(self, volume: Volume, moment: str) -> Command:
        return self._call("backup", "--json", "--force", volume.image(moment))

    def restore(self, volume: Volume, moment: str, target: Path) -> Command:
        return self._call("restore", self.snapshots[moment], target)

    def note(self, moment: str, output: bytes) -> None:
        self.snapshots[moment] = json.loads(output)["id"]

    def _call(self, *words: str | Path) -> Command:
        access: Words = ["-r", self.repository, "--password-file", self.password_file]
        return Command([_rustic_binary(), *access, "--cache-dir", self.folder / "cache", *words])


class Cp(Tool):
    """A plain copy: no encryption, no compression, nothing made durable."""

    name = "cp"

    @classmethod
    def version(cls) -> str:
        return _first_line("cp", "--version").rsplit(" ", 1)[-1]

    def setup(self) -> list[Command]:
        return [Command(["mkdir", self.repository])]

    def backup(self, volume: Volume, moment: str) -> Command:
        copy = self.repository / f"{moment}-{len(self.snapshots)}"
        self.snapshots[moment] = str(copy)
        return Command(["cp", "--reflink=never", volume.image(moment), copy])

    def restore(self, volume: Volume, moment: str, target: Path) -> Command:
        return Command(["cp", "--reflink=never", self.snapshots[moment], target / "disk.img"])


class QemuImg(Cp):
    """`qemu-img convert` to qcow2 and back: no encryption, no compression."""

    name = "qemu-img"

    @classmethod
    def version(cls) -> str:
        if not shutil.which("qemu-img"):
            raise Missing("there is no qemu-img here (Debian: qemu-utils)")
        return _first_line("qemu-img", "--version").split()[2]

    def backup(self, volume: Volume, moment: str) -> Command:
        copy = super().backup(volume, moment).words[-1]
        return Command(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", volume.image(moment), copy])

    def restore(self, volume: Volume, moment: str, target: Path) -> Command:
        words: Words = ["-f", "qcow2", "-O", "raw", self.snapshots[moment], target / "disk.img"]
        return Command(["qemu-img", "convert", *words])


TOOLS: dict[str, type[Tool]] = {
    tool.name: tool for tool in (Coeval, Restic, Kopia, Borg, Rustic, Cp, QemuImg)
}
PLAIN = (Cp.name, QemuImg.name)
"""Those that neither encrypt nor compress: no rivals, a measure."""


def _first_line(*words: str) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout.splitlines()[0]


def _borg_map(doc: dict[str, object]) -> str:
    """Write borg's map of an image: every byte is either `data` or the `same` as before."""
    lines: list[str] = []
    end, ranges, size = 0, doc["ranges"], doc["size"]
    assert isinstance(ranges, list) and isinstance(size, int)
    for offset, length in [*ranges, (size, 0)]:
        if offset > end:
            lines.append(f"{end} {offset - end} same\n")
        if length:
            lines.append(f"{offset} {length} data\n")
        end = offset + length
    return "".join(lines)


def _borg_binary() -> Path:
    """Give borg. It is built from source, for which it needs headers of OpenSSL, acl, lz4 and xxhash."""
    environment = cache() / "borg" / BORG_VERSION
    if not (environment / "installed").exists():
        shutil.rmtree(environment, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", environment], check=True)
        command: Words = [
            "nice",
            environment / "bin/pip",
            "install",
            "--quiet",
            f"borgbackup=={BORG_VERSION}",
        ]
        done = subprocess.run(
            command, env=os.environ | {"BORG_OPENSSL_PREFIX": "/usr"}, capture_output=True, check=False
        )
        if done.returncode:
            raise Missing(
                f"borgbackup {BORG_VERSION} does not build (Debian: pkg-config, libssl-dev, libacl1-dev, "
                "liblz4-dev and libxxhash-dev are needed)"
            )
        (environment / "installed").touch()
    return environment / "bin/borg"


def _rustic_binary() -> Path:
    """Give rustic if it was built: that takes a compiler half an hour, which no bench does by itself."""
    root = cache() / "rustic" / RUSTIC_VERSION
    binary = root / "bin/rustic"
    if not binary.exists():
        raise Missing(
            "not built: cargo install --locked --no-default-features "
            f"--root {root} rustic-rs@{RUSTIC_VERSION}"
        )
    return binary
