"""Azurite, Microsoft's own stand-in for Azure's blob store, as a process on loopback, with blobs in memory.

Installed once from its npm package, which `azurite-build/` pins with all that it needs.
"""

from __future__ import annotations

import base64
import contextlib
import email.utils
import fcntl
import functools
import hashlib
import hmac
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.cluster.paths import cache
from tests.tools.servers import CONNECT, free_port, running

ACCOUNT = "devstoreaccount1"
KEY = base64.b64encode(b"the key of the tests, no secret:" * 2).decode()
WRAPPER = Path(__file__).with_name("azurite-build")
_VERSION = "2021-08-06"
_PUT = """
import json, sys, urllib.request
url, headers = sys.argv[1], json.loads(sys.argv[2])
urllib.request.urlopen(urllib.request.Request(url, headers=headers, method="PUT"))
"""


def installable() -> bool:
    """Tell whether this machine has what it needs."""
    return bool(shutil.which("node") and shutil.which("npm"))


@dataclass(frozen=True)
class Azurite:
    """A running server."""

    endpoint: str
    within: Sequence[str] = ()
    """The command line that runs another one where the server is."""
    _containers: list[str] = field(default_factory=list)

    def bucket(self) -> str:
        """Make a container; give its name."""
        name = f"container-{len(self._containers)}"
        self._containers.append(name)
        date = email.utils.formatdate(usegmt=True)
        headers = {"x-ms-date": date, "x-ms-version": _VERSION}
        named = "".join(f"{key}:{value}\n" for key, value in headers.items())
        text = "PUT" + "\n" * 12 + f"{named}/{ACCOUNT}/{ACCOUNT}/{name}\nrestype:container"
        digest = hmac.new(base64.b64decode(KEY), text.encode(), hashlib.sha256).digest()
        headers["Authorization"] = f"SharedKey {ACCOUNT}:{base64.b64encode(digest).decode()}"
        url = f"{self.endpoint}/{name}?restype=container"
        subprocess.run([*self.within, sys.executable, "-c", _PUT, url, json.dumps(headers)], check=True)
        return name

    def environment(self) -> dict[str, str]:
        """What a client needs, in the usual variables."""
        return {
            "AZURE_STORAGE_ACCOUNT_NAME": ACCOUNT,
            "AZURE_STORAGE_ACCOUNT_KEY": KEY,
            "AZURE_STORAGE_ENDPOINT": self.endpoint,
        }


@contextlib.contextmanager
def azurite(folder: Path, *, within: Sequence[str] = (), address: str = "127.0.0.1") -> Iterator[Azurite]:
    """Run it; it writes nothing but its log, to `folder`.

    `within` is a command line that runs another one in the network namespace where `address` is.
    """
    port = free_port()
    command = [*within, "node", str(_program()), "--inMemoryPersistence", "--skipApiVersionCheck", "--silent"]
    command += ["--disableTelemetry", "--blobHost", address, "--blobPort", str(port)]
    probe = [*within, sys.executable, "-c", CONNECT, address, str(port)]
    with running(command, {"AZURITE_ACCOUNTS": f"{ACCOUNT}:{KEY}"}, probe, folder / "azurite.log"):
        yield Azurite(f"http://{address}:{port}/{ACCOUNT}", within)


@functools.cache
def _program() -> Path:
    version = str(json.loads((WRAPPER / "package.json").read_text())["dependencies"]["azurite"])
    place = cache() / "azurite" / version
    place.mkdir(parents=True, exist_ok=True)
    with (place / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (place / "complete").exists():
            for name in ("package.json", "package-lock.json"):
                shutil.copy(WRAPPER / name, place)
            # What packages would run at installation is for parts that are not used.
            command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"]
            subprocess.run(command, cwd=place, check=True)
            (place / "complete").touch()
    return place / "node_modules/azurite/dist/src/blob/main.js"
