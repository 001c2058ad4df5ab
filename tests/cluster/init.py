"""PID 1 of a cluster: sets the namespaces up, then keeps the services running. All ends with it.

Sidecars end by themselves when their driver died, and tests kill what they like: what ends is started again.
"""

from __future__ import annotations

import http.client
import json
import os
import select
import signal
import socket
import ssl
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import NoReturn
from urllib.parse import urlsplit

from tests.cluster import inside
from tests.cluster.layout import Cluster
from tests.cluster.services import Service

FIRST_DELAY_SECONDS = 0.2
LONGEST_DELAY_SECONDS = 5.0
STABLE_SECONDS = 10.0
"""Who lived that long is started again without a growing delay."""
LOOK_SECONDS = 0.1
PROBE_SECONDS = 1.0


@dataclass
class Running:
    """What the init knows of one service."""

    service: Service
    process: subprocess.Popen[bytes] | None = None
    ready: bool = False
    starts: int = 0
    started_at: float = 0.0
    not_before: float = 0.0
    delay: float = FIRST_DELAY_SECONDS


@dataclass
class Supervisor:
    """Starts services in their order and again when they end."""

    cluster: Cluster
    services: dict[str, Running] = field(default_factory=dict)
    told: str = ""

    def run(self) -> NoReturn:
        """For ever: from SIGCHLD to SIGCHLD, looking more often while something is not ready."""
        wake, wakened = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wakened, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        while True:
            self._reap()
            for each in self.services.values():
                self._step(each)
            self._tell()
            if select.select([wake], [], [], LOOK_SECONDS)[0]:
                os.read(wake, 4096)

    def _step(self, each: Running) -> None:
        held_down = (self.cluster.stopped / each.service.name).exists()
        if each.process is not None:
            if held_down:
                each.process.send_signal(signal.SIGKILL)
            elif not each.ready:
                each.ready = is_ready(each.service.ready, self.cluster)
        elif not held_down and time.monotonic() >= each.not_before and self._has_its_turn(each):
            self._start(each)

    def _has_its_turn(self, each: Running) -> bool:
        return all(self.services[name].ready for name in each.service.after)

    def _start(self, each: Running) -> None:
        with (self.cluster.logs / f"{each.service.name}.log").open("ab") as log:
            each.process = subprocess.Popen(
                each.service.argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/",
                pass_fds=each.service.fds, start_new_session=True,
            )  # fmt: skip
        each.starts += 1
        each.started_at = time.monotonic()

    def _reap(self) -> None:
        """Our services, and the orphans that fall to PID 1 (containerd's shims)."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for each in self.services.values():
                if each.process is not None and each.process.pid == pid:
                    self._ended(each, os.waitstatus_to_exitcode(status))

    def _ended(self, each: Running, code: int) -> None:
        assert each.process is not None
        each.process.returncode = code
        now = time.monotonic()
        if now - each.started_at >= STABLE_SECONDS:
            each.delay = FIRST_DELAY_SECONDS
        each.not_before = now + each.delay
        each.delay = min(2 * each.delay, LONGEST_DELAY_SECONDS)
        each.process, each.ready = None, False
        print(f"{each.service.name} ended with {code}", flush=True)

    def _tell(self) -> None:
        """Writes the present state where `up` and `status` look, when it changed."""
        now = {
            name: {
                "pid": each.process.pid if each.process else None,
                "ready": each.ready,
                "starts": each.starts,
            }
            for name, each in self.services.items()
        }
        text = json.dumps(now, indent=1)
        if text != self.told:
            new = self.cluster.status.with_suffix(".new")
            new.write_text(text)
            new.rename(self.cluster.status)
            self.told = text


def is_ready(condition: str, cluster: Cluster) -> bool:
    """Whether the condition of `Service.ready` holds now."""
    kind, _, rest = condition.partition(":")
    try:
        if kind == "unix":
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(rest)
        elif kind == "tcp":
            host, _, port = rest.rpartition(":")
            socket.create_connection((host, int(port)), timeout=PROBE_SECONDS).close()
        elif kind == "https":
            return _answers(condition, cluster)
    except OSError:
        return False
    return True


def _answers(url: str, cluster: Cluster) -> bool:
    parts = urlsplit(url)
    assert parts.hostname is not None
    trust = ssl.create_default_context(cafile=str(cluster.pki / "ca.crt"))
    client = http.client.HTTPSConnection(parts.hostname, parts.port, timeout=PROBE_SECONDS, context=trust)
    try:
        client.request("GET", parts.path)
        return client.getresponse().status == http.HTTPStatus.OK
    except http.client.HTTPException:
        return False
    finally:
        client.close()


def main() -> None:
    """Argument: the cluster's name."""
    cluster = Cluster(sys.argv[1])
    inside.set_up(cluster)
    services = [Service(**entry) for entry in json.loads(cluster.services.read_text())]
    Supervisor(cluster, {service.name: Running(service) for service in services}).run()


if __name__ == "__main__":
    main()
