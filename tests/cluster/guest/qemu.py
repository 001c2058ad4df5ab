"""The guest under plain QEMU, without Kubernetes: to try it, and to test the judge.

Software emulation, so it runs where there is no /dev/kvm.
"""

from __future__ import annotations

import json
import random
import re
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from tests.cluster.guest.upstream import boot_disk as built_boot_disk
from tests.cluster.guest.upstream import populate_program
from tests.cluster.kubevirt.debian import require

T = TypeVar("T")


class GuestFailed(AssertionError):
    """The guest did not do what it was waited for; the message ends with its console."""


def boot_disk(path: Path, parameters: str = "") -> Path:
    """Makes disk a0 at `path`, with the parameters in it."""
    image = built_boot_disk().with_name("disk.img.gz")
    command = [str(populate_program()), f"-image={image}", f"-to={path}", f"-parameters={parameters}"]
    subprocess.run(command, check=True, capture_output=True)
    return path


def blank_disk(path: Path, mebibytes: int = 64) -> Path:
    """Makes a disk of zeros at `path`; the guest formats it."""
    with path.open("wb") as disk:
        disk.truncate(mebibytes << 20)
    return path


def copy_disk(source: Path, target: Path) -> Path:
    """A copy of a disk as it is at the moment, with its holes."""
    subprocess.run(["cp", "--sparse=always", str(source), str(target)], check=True)
    return target


class Guest:
    """A running guest."""

    def __init__(self, process: subprocess.Popen[bytes], folder: Path) -> None:
        self.process = process
        self._console = folder / "console"
        self._agent = _Channel(folder / "agent")

    @property
    def console(self) -> str:
        """Everything that the guest has said on its serial console."""
        return self._console.read_text(errors="replace") if self._console.exists() else ""

    def wait(self, reached: Callable[[str], T | None], what: str, seconds: float = 120) -> T:
        """Waits until `reached` makes something of the console. Raises GuestFailed."""
        end = time.monotonic() + seconds
        while True:
            answer = reached(self.console)
            if answer is not None:
                return answer
            if self.process.poll() is not None:
                raise GuestFailed(f"QEMU ended with {self.process.returncode}\n{self.console[-3000:]}")
            if time.monotonic() > end:
                raise GuestFailed(f"no {what} within {seconds:.0f} s\n{self.console[-3000:]}")
            time.sleep(0.1)

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Waits until the console matches a regular expression. Raises GuestFailed."""
        return self.wait(lambda console: re.search(pattern, console), repr(pattern))

    def wait_for_step(self, number: int) -> int:
        """Waits until the writer, which tells once a second, has told this step or a later one."""

        def reached(console: str) -> int | None:
            told = re.findall(r"coeval-guest: sequence (\d+)", console)[-1:]
            return int(told[0]) if told and int(told[0]) >= number else None

        return self.wait(reached, f"step {number}")

    def agent(self, command: str, **arguments: Any) -> Any:
        """Asks the guest agent. Raises GuestFailed with its error."""
        return self._agent.ask(command, arguments)

    @contextmanager
    def frozen(self) -> Iterator[int]:
        """Freezes the guest's file systems, always thaws them; yields how many they are."""
        count = self.agent("guest-fsfreeze-freeze")
        try:
            yield count
        finally:
            self.agent("guest-fsfreeze-thaw")


@contextmanager
def running(disks: Mapping[str, Path]) -> Iterator[Guest]:
    """A guest with disks by serial: image disks (a…) on virtio, direct disks (b…) on SCSI, as in the cluster.

    The machine is cut off at the end, like a power cut. Nothing of it is left.
    """
    require("qemu-system-x86_64")
    with tempfile.TemporaryDirectory(prefix="coeval-guest-") as name:
        folder = Path(name)
        command = ["qemu-system-x86_64", *_machine(folder)]
        for serial, path in disks.items():
            command += _disk(serial, path)
        errors = folder / "errors"
        with errors.open("wb") as said:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
        try:
            yield Guest(process, folder)
        finally:
            process.kill()
            process.wait()


def _machine(folder: Path) -> list[str]:
    return [
        *("-machine", "q35", "-accel", "tcg", "-cpu", "max", "-m", "256", "-nodefaults", "-display", "none"),
        *("-no-reboot", "-serial", f"file:{folder / 'console'}"),
        *("-device", "virtio-scsi-pci", "-device", "virtio-serial-pci"),
        *("-chardev", f"socket,path={folder / 'agent'},server=on,wait=off,id=agent"),
        *("-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0"),
    ]


def _disk(serial: str, path: Path) -> list[str]:
    drive = f"file={path},format=raw,if=none,id={serial},cache=none,discard=unmap"
    model = "virtio-blk-pci" if serial.startswith("a") else "scsi-hd"
    boot = ",bootindex=1" if serial == "a0" else ""
    return ["-drive", drive, "-device", f"{model},drive={serial},serial={serial}{boot}"]


class _Channel:
    """The guest agent's socket: one JSON document a line in each direction."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def ask(self, command: str, arguments: Mapping[str, Any], seconds: float = 30) -> Any:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(seconds)
            connection.connect(str(self._path))
            lines = connection.makefile("rb")
            # An answer to somebody before us may still be on its way: read until our own number comes back.
            number = random.getrandbits(31)
            self._send(connection, "guest-sync", {"id": number})
            while json.loads(lines.readline()).get("return") != number:
                pass
            self._send(connection, command, arguments)
            answer = json.loads(lines.readline())
        if "error" in answer:
            raise GuestFailed(f"{command}: {answer['error'].get('desc', answer['error'])}")
        return answer["return"]

    @staticmethod
    def _send(connection: socket.socket, command: str, arguments: Mapping[str, Any]) -> None:
        connection.sendall(json.dumps({"execute": command, "arguments": dict(arguments)}).encode() + b"\n")
