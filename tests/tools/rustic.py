"""rustic's engine, built once from its crates and kept: the third that writes this format.

The wrapper in `rustic-build/` gives it words of rustic's own command line; its Cargo.lock pins everything.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from tests.cluster.paths import cache

WRAPPER = Path(__file__).with_name("rustic-build")


@functools.cache
def rustic_binary() -> Path:
    """Give the program; builds it (a minute or two) if it is not cached. Safe for several runs at once.

    Raises RuntimeError with the compiler's words.
    """
    sources = b"".join((WRAPPER / name).read_bytes() for name in ("Cargo.toml", "Cargo.lock", "src/main.rs"))
    binary = cache() / "rustic-core" / hashlib.sha256(sources).hexdigest()[:16] / "rustic"
    binary.parent.mkdir(parents=True, exist_ok=True)
    with (binary.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not binary.exists():
            _build(binary)
    return binary


def _build(binary: Path) -> None:
    with tempfile.TemporaryDirectory(dir=binary.parent) as folder:
        command = ["nice", "cargo", "build", "--locked", "--target-dir", folder]
        done = subprocess.run(command, cwd=WRAPPER, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"rustic does not build:\n{done.stderr}")
        shutil.move(Path(folder) / "debug/rustic", binary)


class Rustic:
    """rustic on one repository, without a cache of its own."""

    def __init__(self, repository: Path, password: str) -> None:
        self.repository = repository
        access = {"RUSTIC_PASSWORD": password, "RUSTIC_REPOSITORY": str(repository)}
        self._environment = os.environ | access

    def run(self, *arguments: str) -> bytes:
        """Run a command that must succeed; give its stdout."""
        command = [str(rustic_binary()), *arguments]
        done = subprocess.run(command, env=self._environment, capture_output=True, check=False)
        assert done.returncode == 0, f"rustic {arguments}: {done.stderr.decode()}{done.stdout.decode()}"
        return done.stdout

    def backup(self, folder: Path) -> str:
        """Back up a folder's content; give the snapshot."""
        made: dict[str, Any] = json.loads(self.run("backup", str(folder)))
        return str(made["id"])

    def check(self) -> None:
        """Read everything."""
        self.run("check", "--read-data")
