"""A repository in a bucket: the whole way by the command line, restic's word on it, listings, memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from coeval.repository.store import Kind, open_store

from tests.tools.fault_proxy import (
    FaultProxy,
    answers,
    cuts_answer,
    cuts_request,
    fault_proxy,
    lists_nothing,
    loses_answer,
)
from tests.tools.pages import blocks
from tests.tools.repositories import PASSWORD, Cli
from tests.tools.restic import Restic, restic_binary
from tests.tools.server_fixtures import open_bucket
from tests.tools.servers import S3Server

T1 = "2026-01-01T00:00:00Z"
T2 = "2026-01-01T00:00:05Z"
TAG = ("--tag", "backup=shop/db-1")
MIB = 1 << 20


@pytest.fixture
def proxy(gateway: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    with fault_proxy(gateway.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        yield proxy


@pytest.mark.restic
def test_the_whole_way_over_s3(gateway: S3Server, proxy: FaultProxy, tmp_path: Path) -> None:
    """With a few faults on the way: the result must not show them."""
    bucket = gateway.bucket()
    cli = Cli(tmp_path, f"s3://{bucket}/prod/shop/db")
    t1 = os.urandom(3 * MIB) + bytes(2 * MIB) + b"some text " * 100_000 + os.urandom(777)
    changed = bytearray(t1)
    changed[MIB : MIB + 5] = b"after"
    (tmp_path / "t1").write_bytes(t1)
    (tmp_path / "t2").write_bytes(changed)

    proxy.fail("^PUT .*/config", loses_answer)
    assert cli.run("repo", "init")["created"]
    assert cli.run("repo", "init", code=2)["error"]["reason"] == "InvalidArgument"
    assert cli.run("repo", "probe")["writable"]
    proxy.fail("^PUT .*/data/", answers(503, "SlowDown"))
    proxy.fail("^PUT .*/data/", cuts_request(100_000))
    proxy.fail("^GET .*prefix=.*index", cuts_answer(30))
    interim = cli.copy(tmp_path / "t2", "root", "--interim", "--as-of", T2, "--limit-upload", "1000", *TAG)
    proxy.fail("^GET .*/index/", cuts_answer(30))
    step = ("--name", "root", "--snapshot", interim, "--source", str(tmp_path / "t1"), "--as-of", T1, *TAG)
    root = cli.run("volume", "retime", *step)["snapshot"]
    backup = cli.run("commit", "--snapshot", root, "--forget-parts")["snapshot"]
    proxy.fail("^GET .*/data/", cuts_answer(10))
    target = tmp_path / "restored"
    cli.run("volume", "restore", "--snapshot", backup, "--name", "root", "--target", str(target), "--sparse")
    assert target.read_bytes() == t1
    assert cli.run("verify", "--snapshot", "latest")["bytes_verified"] > 3 * MIB
    assert proxy.spent

    restic = Restic(f"s3:{gateway.endpoint}/{bucket}/prod/shop/db", PASSWORD)
    restic.check()
    assert [snapshot["id"] for snapshot in restic.snapshots()] == [backup]
    restic.run("prune")
    assert restic.run("dump", backup, "/disks/root/disk.img") == t1
    assert cli.run("verify", "--snapshot", backup)["snapshot"] == backup
    store = open_store(cli.url)
    assert all(not list(store.entries(kind)) for kind in (Kind.LOCK, Kind.PROBE))


@pytest.mark.restic
def test_what_restic_made_is_read_and_extended(gateway: S3Server, tmp_path: Path) -> None:
    place = f"{gateway.bucket()}/made-by-restic"
    restic = Restic(f"s3:{gateway.endpoint}/{place}", PASSWORD)
    restic.run("init")
    (tmp_path / "disk.img").write_bytes(b"from the other one" * 1000)
    cli = Cli(tmp_path, f"s3://{place}")
    part = cli.copy(tmp_path / "disk.img", "a", "--as-of", T1)
    cli.run("commit", "--snapshot", part)
    restic.check()


@pytest.mark.restic
def test_the_page_about_s3_is_true(gateway: S3Server, tmp_path: Path) -> None:
    (tmp_path / "password").write_text(PASSWORD)
    (tmp_path / "image").write_bytes(os.urandom(MIB))
    programs = [str(Path(sys.executable).parent), str(restic_binary().parent)]
    reader = os.environ | {
        "PATH": os.pathsep.join([*programs, os.environ["PATH"]]),
        "BUCKET": gateway.bucket(),
        "PASSWORD_FILE": str(tmp_path / "password"),
        "IMAGE": str(tmp_path / "image"),
    }
    page = Path(__file__).parents[3] / "docs/store-in-s3.md"
    run = [text for text, reason in blocks(page) if not reason]
    assert run
    for text in run:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text], env=reader, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_a_store_that_is_unfit_is_named(gateway: S3Server, proxy: FaultProxy, tmp_path: Path) -> None:
    cli = Cli(tmp_path, f"s3://{gateway.bucket()}/x")
    for command in ("init", "probe"):
        proxy.fail("^GET .*prefix=x/tmp|^GET .*prefix=x%2Ftmp", lists_nothing)
        error = cli.run("repo", command, code=1)["error"]
        assert error["reason"] == "StoreUnfit" and f"--repository {cli.url}: " in error["message"]
    assert not list(open_store(cli.url).entries(Kind.CONFIG))


def test_failures_reach_the_command_lines_document(gateway: S3Server, tmp_path: Path) -> None:
    cli = Cli(tmp_path, f"s3://{gateway.bucket()}/nothing-here")
    assert cli.run("verify", "--snapshot", "latest", code=1)["error"]["reason"] == "RepositoryNotFound"
    absent = Cli(tmp_path, "s3://no-such-bucket/x")
    error = absent.run("repo", "init", code=1)["error"]
    assert error["reason"] == "BucketNotFound" and "s3://no-such-bucket/x at http://" in error["message"]
    for limit in ("0", "-1", "nan"):
        words = ("volume", "copy", "--name", "a", "--source", "/x", "--limit-upload", limit)
        assert "--limit-upload" in cli.run(*words, code=2)["error"]["message"]


def test_a_listing_of_many_pages_is_whole(s3_server: S3Server) -> None:
    bucket, names = s3_server.bucket(), [f"{number:064x}" for number in range(1100)]
    store = open_bucket(bucket)
    if s3_server.folder:
        folder = s3_server.folder / bucket / "some/prefix/locks"
        folder.mkdir(parents=True)
        for name in names:
            (folder / name).write_bytes(b"l")
        (folder / "no-lock-of-ours").write_bytes(b"")
    else:
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(lambda name: store.save(Kind.LOCK, name, [b"l"]), names))
    assert sorted(store.entries(Kind.LOCK)) == [(name, 1) for name in names]


def test_only_old_leavings_are_swept(gateway: S3Server) -> None:
    assert gateway.folder
    bucket = gateway.bucket()
    store = open_bucket(bucket)
    old, young = "ab" * 32, "cd" * 32
    for name in (old, young):
        store.save(Kind.PROBE, name, [b"x"])
    os.utime(gateway.folder / bucket / "some/prefix/tmp" / old, (time.time() - 25 * 3600,) * 2)
    assert store.sweep() == 1
    assert list(store.entries(Kind.PROBE)) == [(young, 1)]


MEASURE = """
import json, os, sys
from pathlib import Path
from coeval.repository.cloud import open_cloud
from coeval.repository.store import Kind

def peak() -> int:
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])

store = open_cloud(sys.argv[1])
store.save(Kind.PACK, "ab" * 32, [b"warm"])
parts = [os.urandom(1 << 20) for _ in range(96)]
before = peak()
store.save(Kind.PACK, "ab" * 32, parts)
print(json.dumps(peak() - before))
"""


def test_a_pack_is_sent_from_where_it_lies(gateway: S3Server) -> None:
    url = f"s3://{gateway.bucket()}/x"
    # No folder for temporary files: none is needed.
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, url],
        env=os.environ | {"TMPDIR": "/nowhere"},
        capture_output=True,
        check=True,
    )
    assert json.loads(done.stdout) < 24 * 1024, "KiB of peak memory for an object of 96 MiB"
