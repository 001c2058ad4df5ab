"""Builds the programs of an upstream from its pinned Go modules, once per version.

Every upstream has a wrapper module of its own in `build/<upstream>/`: upstreams pin their libraries with
`replace` lines that consumers do not inherit, and one module for all would lift dependencies to versions that
no upstream was tested with.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.cluster.paths import WRAPPERS, cache

HEARTBEAT_SECONDS = 30.0


class BuildFailed(Exception):
    """A program could not be built; the message ends with the compiler's last lines."""


@dataclass(frozen=True)
class Target:
    """One program: its file name, its package, and how long a cold build takes on two cores, in seconds."""

    name: str
    package: str
    seconds: int
    test: bool = False
    """The package is a test program (`go test -c`)."""


@dataclass(frozen=True)
class Upstream:
    """One wrapper module and the programs built from it.

    `build` makes the files of the upstream in an empty folder; the default runs `go build` per target.
    """

    name: str
    targets: tuple[Target, ...]
    tags: tuple[str, ...] = ()
    ldflags: tuple[str, ...] = ("-s", "-w")
    cgo: bool = False
    mod: str = "readonly"
    """`mod` only where upstream's graph cannot be tidied: it may look things up beyond go.sum."""
    env: tuple[tuple[str, str], ...] = ()
    build: Callable[[Upstream, Path], None] = field(default_factory=lambda: build_with_go)

    @property
    def wrapper(self) -> Path:
        """The folder of go.mod and go.sum."""
        return WRAPPERS / self.name

    @property
    def seconds(self) -> int:
        """A cold build of everything, on two cores."""
        return sum(target.seconds for target in self.targets)


@functools.cache
def directory(upstream: Upstream) -> Path:
    """The folder that holds the built programs, present or not; another version is another folder."""
    digest = hashlib.sha256()
    for path in sorted(path for path in upstream.wrapper.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(upstream.wrapper)}\0".encode() + path.read_bytes() + b"\0")
    settings = (upstream.tags, upstream.ldflags, upstream.cgo, upstream.mod, upstream.env)
    names = [(target.name, target.package, target.test) for target in upstream.targets]
    digest.update(repr((settings, names, _go_version())).encode())
    return cache() / "bin" / f"{upstream.name}-{digest.hexdigest()[:16]}"


def is_built(upstream: Upstream) -> bool:
    """Whether the programs are there: the folder gets its name only when all of them are."""
    return directory(upstream).is_dir()


def ensure(upstreams: Iterable[Upstream]) -> None:
    """Builds what is missing, one after another: two builds at once only fight for memory."""
    missing = [upstream for upstream in upstreams if not is_built(upstream)]
    if missing:
        names = ", ".join(upstream.name for upstream in missing)
        estimate = _minutes(sum(upstream.seconds for upstream in missing))
        say(f"to build: {names} … at most about {estimate} when nothing is cached")
    for upstream in missing:
        # A lock for each: the plain cluster does not wait for somebody's KubeVirt.
        with locked(cache() / "bin" / f".{upstream.name}.lock", f"another build of {upstream.name}"):
            if not is_built(upstream):
                _build_into_place(upstream)


def _build_into_place(upstream: Upstream) -> None:
    final = directory(upstream)
    for leftover in final.parent.glob(f".{upstream.name}.tmp-*"):
        shutil.rmtree(leftover)  # ours alone: the lock is held, so its builder is dead
    temporary = Path(tempfile.mkdtemp(prefix=f".{upstream.name}.tmp-", dir=final.parent))
    temporary.chmod(0o755)
    started = time.monotonic()
    upstream.build(upstream, temporary)
    temporary.rename(final)
    say(f"built {upstream.name} in {time.monotonic() - started:.0f} s: {final}")


def build_with_go(upstream: Upstream, into: Path) -> None:
    """Runs the Go compiler once per target."""
    for number, target in enumerate(upstream.targets):
        remaining = sum(each.seconds for each in upstream.targets[number:])
        label = f"building {upstream.name} {number + 1}/{len(upstream.targets)} {target.name}"
        run_reporting(
            go_command(upstream, target, into), label, remaining, upstream.wrapper, go_environment(upstream)
        )


def go_command(upstream: Upstream, target: Target, into: Path) -> list[str]:
    """The compiler call for one target."""
    verb = ["go", "test", "-c"] if target.test else ["go", "build"]
    flags = ["-p", "2", "-trimpath", f"-mod={upstream.mod}", "-o", str(into / target.name)]
    if upstream.tags:
        flags += ["-tags", ",".join(upstream.tags)]
    return ["nice", "-n", "10", *verb, *flags, "-ldflags", " ".join(upstream.ldflags), target.package]


def go_environment(upstream: Upstream) -> dict[str, str]:
    """The caller's environment with what decides the result set by us."""
    decided = {
        "GOTOOLCHAIN": "local",
        "GOFLAGS": "",
        "GOWORK": "off",
        "CGO_ENABLED": "1" if upstream.cgo else "0",
    }
    return {**os.environ, **decided, **dict(upstream.env)}


def run_reporting(
    command: list[str], label: str, estimate: int, cwd: Path, env: dict[str, str] | None = None
) -> None:
    """Runs a long command, saying now and then that it lives and how long it may take.

    `estimate` is in seconds. Raises BuildFailed with the last lines of its output.
    """
    say(f"{label} … at most about {_minutes(estimate)}")
    started = time.monotonic()
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
        try:
            while process.poll() is None:
                try:
                    process.wait(HEARTBEAT_SECONDS)
                except subprocess.TimeoutExpired:
                    elapsed = time.monotonic() - started
                    left = (
                        f"at most about {_minutes(estimate - elapsed)} left"
                        if elapsed < estimate
                        else "slower than usual"
                    )
                    say(f"{label} … {elapsed:.0f} s so far, {left}")
        except BaseException:
            process.terminate()
            process.wait()
            raise
        if process.returncode:
            output.seek(0)
            tail = "".join(output.readlines()[-30:])
            raise BuildFailed(f"{label} failed with exit status {process.returncode}:\n{tail}")


@contextmanager
def locked(path: Path, busy: str) -> Iterator[None]:
    """Holds an exclusive lock on a file; the kernel drops it when the holder dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for {busy}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def say(text: str) -> None:
    """One line of progress, apart from results on stdout."""
    print(text, file=sys.stderr, flush=True)


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"


@functools.cache
def _go_version() -> str:
    return subprocess.run(
        ["go", "env", "GOVERSION"], check=True, capture_output=True, text=True
    ).stdout.strip()
