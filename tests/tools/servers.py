"""S3 servers for tests, as processes of their own on loopback: versitygw (a folder), moto (in memory)."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.cluster import pki
from tests.cluster.paths import cache
from tests.tools.go_programs import go_program

ACCESS_KEY = "COEVALTESTACCESSKEY"
SECRET_KEY = "the-secret-key-of-the-tests"
REGION = "us-east-1"
START_SECONDS = 60.0
CONNECT = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 1)"


@dataclass(frozen=True)
class S3Server:
    """A running server. `folder` is where versitygw keeps buckets as folders, objects as files."""

    endpoint: str
    folder: Path | None = None
    ca: Path | None = None
    _buckets: list[str] = field(default_factory=list)

    def bucket(self) -> str:
        """Make a bucket; give its name."""
        name = f"bucket-{len(self._buckets)}"
        self._buckets.append(name)
        if self.folder is not None:
            (self.folder / name).mkdir()
        else:
            # moto looks at no signature.
            with urllib.request.urlopen(urllib.request.Request(f"{self.endpoint}/{name}", method="PUT")):  # noqa: S310
                pass
        return name

    def environment(self) -> dict[str, str]:
        """What a client needs, in the usual variables."""
        variables = {
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_REGION": REGION,
            "AWS_ENDPOINT_URL": self.endpoint,
        }
        return variables | ({"AWS_CA_BUNDLE": str(self.ca)} if self.ca else {})


def free_port() -> int:
    """Give a loopback port that nobody uses."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def versitygw(
    folder: Path, *, tls: bool = False, within: Sequence[str] = (), address: str = "127.0.0.1"
) -> Iterator[S3Server]:
    """Run versitygw over a new folder; with TLS under a CA of its own, which nobody else trusts.

    `within` is a command line that runs another one in the network namespace where `address` is.
    """
    buckets = folder / "buckets"
    buckets.mkdir()
    port = free_port()
    program = go_program("versitygw", "github.com/versity/versitygw/cmd/versitygw")
    command = [str(program), "--port", f"{address}:{port}", "--region", REGION, "--quiet", "--keep-alive"]
    if tls:
        pki.write_server(folder, address)
        command += ["--cert", str(folder / "server.crt"), "--key", str(folder / "server.key")]
    environment = {"ROOT_ACCESS_KEY_ID": ACCESS_KEY, "ROOT_SECRET_ACCESS_KEY": SECRET_KEY}
    probe = [*within, sys.executable, "-c", CONNECT, address, str(port)]
    command = [*within, *command, "posix", str(buckets)]
    with running(command, environment, probe, folder / "versitygw.log"):
        scheme = "https" if tls else "http"
        yield S3Server(f"{scheme}://{address}:{port}", buckets, folder / "ca.crt" if tls else None)


@contextlib.contextmanager
def moto(folder: Path) -> Iterator[S3Server]:
    """Run moto's server. It holds objects in memory and accepts every credential."""
    port = free_port()
    command = [str(_moto_python()), "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    probe = [sys.executable, "-c", CONNECT, "127.0.0.1", str(port)]
    with running(command, {}, probe, folder / "moto.log"):
        yield S3Server(f"http://127.0.0.1:{port}")


@functools.cache
def _moto_python() -> Path:
    """Give the Python of moto's own environment: its libraries exclude versions that ours need."""
    lock_file = Path(__file__).with_name("moto-build") / "requirements.lock"
    version = next(line for line in lock_file.read_text().splitlines() if line.startswith("moto=="))
    place = cache() / "moto" / version.removeprefix("moto==")
    place.mkdir(parents=True, exist_ok=True)
    with (place / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (place / "complete").exists():
            subprocess.run([sys.executable, "-m", "venv", "--clear", str(place / "venv")], check=True)
            pip = [str(place / "venv/bin/pip"), "install", "--quiet", "--requirement", str(lock_file)]
            subprocess.run(pip, check=True)
            (place / "complete").touch()
    return place / "venv/bin/python"


@contextlib.contextmanager
def running(command: list[str], environment: dict[str, str], probe: list[str], log: Path) -> Iterator[None]:
    """Run a server until the block ends, which begins once the probe succeeds."""
    # A run that is killed must not leave its servers behind.
    command = ["setpriv", "--pdeathsig", "KILL", *command]
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=os.environ | environment, stdout=output, stderr=output)
    try:
        _wait(process, probe, log)
        yield
    finally:
        process.kill()  # versitygw, asked to end, waits for idle clients
        process.wait(10)


def _wait(process: subprocess.Popen[bytes], probe: list[str], log: Path) -> None:
    until = time.monotonic() + START_SECONDS
    while subprocess.run(probe, capture_output=True, check=False).returncode:
        if process.poll() is not None or time.monotonic() > until:
            raise RuntimeError(f"{process.args!r} does not answer:\n{log.read_text()}")
        time.sleep(0.02)
