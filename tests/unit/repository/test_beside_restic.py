"""A live restic and our commands in one bucket, each held in the middle of its work by a proxy."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from coeval.repository.store import Kind, open_store

from tests.tools.fault_proxy import FaultProxy, Gate, fault_proxy
from tests.tools.repositories import CHEAP, PASSWORD, Cli
from tests.tools.restic import Restic
from tests.tools.servers import S3Server

pytestmark = pytest.mark.restic

T1 = "2026-01-01T00:00:00Z"
MIB = 1 << 20
SECONDS = 60


@dataclass
class Bucket:
    """A repository with two backups, of which one is forgotten so that there is something to prune."""

    cli: Cli
    proxy: FaultProxy
    held: Restic
    """restic through the proxy."""
    free: Restic
    """restic on the server itself."""
    source: Path
    part: str
    target: Path

    def commands(self) -> list[tuple[str, ...]]:
        """Give all that works on the backup and its part."""
        root, taken = ("--name", "root"), ("--snapshot", self.part)
        read = ("--source", str(self.source), "--as-of", T1)
        return [
            ("volume", "copy", *root, *read),
            ("volume", "retime", *root, *taken, *read),
            ("volume", "restore", *root, *taken, "--target", str(self.target), "--overwrite"),
            ("verify", *taken),
            ("verify", *taken, "--repair"),
            ("commit", *taken),
            ("repo", "forget", "--tag", "nobody=has"),
        ]

    def damage(self) -> None:
        """Cut the data packs short."""
        store = open_store(self.cli.url)
        for name, _ in sorted(store.entries(Kind.PACK), key=lambda entry: -entry[1])[:2]:
            store.save(Kind.PACK, name, [store.load(Kind.PACK, name)[:-1]])

    def locks(self) -> list[str]:
        return [name for name, _ in open_store(self.cli.url).entries(Kind.LOCK)]

    def refused(self, command: tuple[str, ...], who: int) -> None:
        error = self.cli.run(*command, code=1)["error"]
        assert error["reason"] == "RepositoryLocked" and f"by pid {who} of" in error["message"]


@pytest.fixture
def bucket(gateway: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    place = f"{gateway.bucket()}/shop/db"
    cli = Cli(tmp_path, f"s3://{place}")
    monkeypatch.setattr("coeval.repository.repository.ScryptCost", lambda: CHEAP)
    cli.run("repo", "init")
    source = tmp_path / "image"
    source.write_bytes(random.Random(1).randbytes(2 * MIB))  # noqa: S311
    gone = cli.copy(source, "root", "--as-of", T1)
    source.write_bytes(random.Random(2).randbytes(MIB) + b"and the second" * MIB)  # noqa: S311
    part = cli.copy(source, "root", "--as-of", T1)
    cli.run("repo", "forget", "--snapshot", gone)
    with fault_proxy(gateway.endpoint) as proxy:
        held = Restic(f"s3:{proxy.endpoint}/{place}", PASSWORD)
        free = Restic(f"s3:{gateway.endpoint}/{place}", PASSWORD)
        yield Bucket(cli, proxy, held, free, source, part, tmp_path / "out")


@contextmanager
def at(gate: Gate, process: subprocess.Popen[bytes], code: int = 0) -> Iterator[list[bytes]]:
    """Wait until a process stands at the gate; at the end let it go on and end, and give what it wrote."""
    ended: list[bytes] = []
    try:
        assert gate.reached.wait(SECONDS), "it never came to the gate"
        yield ended
        gate.opened.set()
        ended += process.communicate(timeout=SECONDS)
        assert process.returncode == code, ended
    finally:
        gate.opened.set()
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("words", "where"),
    [
        (("prune", "--max-unused", "0"), "^PUT .*/index/"),
        (("prune", "--max-unused", "0"), "^DELETE .*/data/"),
        (("check", "--read-data"), "^GET .*/data/"),
    ],
)
def test_all_of_ours_is_refused_while_restic_is_alone_and_goes_on_after(
    bucket: Bucket, words: tuple[str, ...], where: str
) -> None:
    gate = Gate()
    bucket.proxy.fail(where, gate.holds)
    running = bucket.held.start(*words)
    with at(gate, running):
        for command in bucket.commands():
            bucket.refused(command, running.pid)
        assert len(bucket.locks()) == 1, "none of ours is left"
    assert not bucket.locks()
    for command in bucket.commands():
        bucket.cli.run(*command)
    assert bucket.target.read_bytes() == bucket.source.read_bytes()
    bucket.free.check()


def test_a_restic_that_was_killed_is_no_longer_waited_for(bucket: Bucket) -> None:
    gate = Gate()
    bucket.proxy.fail("^DELETE .*/data/", gate.holds)
    running = bucket.held.start("prune", "--max-unused", "0")
    with at(gate, running, code=-signal.SIGKILL):
        running.kill()
        running.wait(SECONDS)
        assert len(bucket.locks()) == 1
        for command in bucket.commands():
            bucket.cli.run(*command)
        assert not bucket.locks()
    bucket.free.run("prune", "--max-unused", "0")
    bucket.free.check()


def ours(bucket: Bucket, *words: str) -> subprocess.Popen[bytes]:
    """Start a command of ours, as a process of its own that ends with us, through the proxy."""
    split = next(number for number, word in enumerate(words) if word.startswith("-"))
    command = ["setpriv", "--pdeathsig", "KILL", sys.executable, "-m", "coeval.cli.main"]
    command += [*words[:split], *bucket.cli.access, *words[split:]]
    environment = os.environ | {"AWS_ENDPOINT_URL": bucket.proxy.endpoint}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_restic_backs_up_beside_our_copy_but_prunes_only_after(bucket: Bucket, tmp_path: Path) -> None:
    gate = Gate()
    bucket.proxy.fail("^PUT .*/data/", gate.holds)
    (tmp_path / "new").write_bytes(os.urandom(MIB))
    copying = ours(bucket, "volume", "copy", "--name", "new", "--source", str(tmp_path / "new"))
    with at(gate, copying):
        bucket.free.run("backup", str(bucket.source))
        bucket.free.run("snapshots")
        for words in (("prune",), ("forget", bucket.part), ("check",)):
            done = bucket.free.attempt(*words)
            assert done.returncode and f"by PID {copying.pid} on".encode() in done.stderr
    assert len(bucket.free.snapshots()) == 3
    bucket.free.run("prune", "--max-unused", "0")
    bucket.free.check()


def test_restic_does_nothing_beside_our_repair_and_waits_if_told(bucket: Bucket) -> None:
    """The repair is held where it replaces the index."""
    bucket.damage()
    gate = Gate()
    bucket.proxy.fail("^PUT .*/index/", gate.holds)
    repairing = ours(bucket, "verify", "--snapshot", bucket.part, "--repair")
    with at(gate, repairing, code=3) as ended:
        for words in (("snapshots",), ("backup", str(bucket.source)), ("prune",)):
            done = bucket.free.attempt(*words)
            assert done.returncode and b"locked exclusively" in done.stderr
            assert f"by PID {repairing.pid} on".encode() in done.stderr
        bucket.refused(bucket.commands()[0], repairing.pid)
        gate.opened.set()
        with bucket.free.start("backup", "--retry-lock", "1m", str(bucket.source)) as waiting:
            waiting.communicate(timeout=2 * SECONDS)
        assert waiting.returncode == 0
    assert "; repaired" in json.loads(ended[0])["error"]["message"]
    bucket.cli.run("volume", "copy", "--name", "root", "--source", str(bucket.source), "--as-of", T1)
    bucket.cli.run("verify", "--snapshot", bucket.part)


def test_backups_go_on_beside_a_verify_that_will_repair(bucket: Bucket, tmp_path: Path) -> None:
    bucket.damage()
    (tmp_path / "new").write_bytes(os.urandom(MIB))
    gate = Gate()
    bucket.proxy.fail("^GET .*/data/", gate.holds)
    repairing = ours(bucket, "verify", "--snapshot", bucket.part, "--repair")
    with at(gate, repairing, code=3) as ended:
        made = bucket.cli.copy(tmp_path / "new", "new")
        bucket.free.run("backup", str(tmp_path / "new"))
        assert bucket.free.attempt("prune").returncode
    assert "; repaired: damaged packs no longer listed: 1" in json.loads(ended[0])["error"]["message"]
    bucket.cli.run("verify", "--snapshot", made)
    bucket.cli.run("volume", "copy", "--name", "root", "--source", str(bucket.source), "--as-of", T1)
    bucket.cli.run("verify", "--snapshot", bucket.part)
    bucket.free.run("prune", "--max-unused", "0")
    bucket.free.check()


def test_a_repair_leaves_alone_what_a_running_backup_may_rely_on(bucket: Bucket, tmp_path: Path) -> None:
    bucket.damage()
    (tmp_path / "new").write_bytes(os.urandom(MIB))
    gate = Gate()
    bucket.proxy.fail("^PUT .*/data/", gate.holds)
    copying = ours(bucket, "volume", "copy", "--name", "new", "--source", str(tmp_path / "new"))
    store = open_store(bucket.cli.url)
    with at(gate, copying):
        before = sorted(store.entries(Kind.INDEX))
        message = bucket.cli.run("verify", "--snapshot", bucket.part, "--repair", code=3)["error"]["message"]
        assert f"; not repaired: the repository is locked by pid {copying.pid} of" in message
        assert sorted(store.entries(Kind.INDEX)) == before and len(bucket.locks()) == 1
    message = bucket.cli.run("verify", "--snapshot", bucket.part, "--repair", code=3)["error"]["message"]
    assert "; repaired: damaged packs no longer listed: 1" in message
