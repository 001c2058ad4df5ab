"""The command line's contract: one JSON document, the exit code, the option named and the way out."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from coeval.repository.file_store import FileStore
from coeval.repository.repository import Repository
from coeval.repository.store import Kind, open_store

from tests.tools.repositories import PASSWORD, Cli, run_coeval
from tests.tools.servers import S3Server

COEVAL = [sys.executable, "-m", "coeval.cli.main"]


def test_wrong_usage_ends_in_the_same_document(cli: Cli, tmp_path: Path) -> None:
    result = tmp_path / "result"
    for words in (
        ["volume", "copy", "--result", str(result)],
        ["volume", "copy", f"--result={result}"],
        ["nonsense", "--result", str(result)],
        [*["verify", *cli.access], "--snapshot", "x", "--sample", "2", "--result", str(result)],
        [*["volume", "copy", *cli.access], "--name", "a/b", "--source", "/x", "--result", str(result)],
    ):
        result.unlink(missing_ok=True)
        error = run_coeval(*words, code=1 if "a/b" in words else 2)["error"]
        assert json.loads(result.read_text())["error"] == error


@pytest.mark.parametrize(
    ("words", "reason", "named"),
    [
        (["--as-of", "yesterday"], "InvalidArgument", "--as-of yesterday"),
        (["--as-of", "2026-01-01T00:00:00"], "InvalidArgument", "--as-of"),
        (["--tag", "nonsense"], "InvalidArgument", "--tag nonsense"),
        (["--tag", "as-of=2026"], "InvalidArgument", "--tag as-of"),
        (["--tag", "a=b,c"], "InvalidArgument", "commas"),
        (["--changed", "/missing"], "InvalidArgument", "--parent"),
        (["--base-handle", "h"], "InvalidArgument", "--parent"),
        (["--name", "../x"], "InvalidArgument", "--name"),
        (["--parent", "abc", "--changed", "/missing"], "InvalidRanges", "/missing"),
    ],
)
def test_option_errors_name_the_option(
    cli: Cli, tmp_path: Path, words: list[str], reason: str, named: str
) -> None:
    name = [] if "--name" in words else ["--name", "a"]
    source = ["--source", str(tmp_path / "image")]
    error = cli.run("volume", "copy", *name, *source, *words, code=2)["error"]
    assert error["reason"] == reason and named in error["message"]
    assert not list((cli.repository / "locks").iterdir())


def test_failures_have_their_reasons(cli: Cli, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.write_text("\n")
    other = tmp_path / "other"
    other.write_text("other")
    url = f"file://{cli.repository}"
    verify = ["verify", "--snapshot", "ab"]
    for words, reason, code in (
        ([*verify, "--repository", url, "--password-file", str(other)], "WrongPassword", 1),
        ([*verify, "--repository", url, "--password-file", str(empty)], "InvalidArgument", 2),
        ([*verify, "--repository", url, "--password-file", "/missing"], "InvalidArgument", 2),
        ([*verify, "--repository", f"{url}x", "--password-file", str(other)], "RepositoryNotFound", 1),
        ([*verify, "--repository", "s3://b/p", "--password-file", str(other)], "InvalidArgument", 2),
        ([*verify, *cli.access], "SnapshotNotFound", 1),
        (["volume", "copy", *cli.access, "--name", "a", "--source", "/missing"], "SourceUnreadable", 1),
    ):
        assert run_coeval(*words, code=code)["error"]["reason"] == reason
        assert "other" not in reason


def test_init_probe_and_init_on_copy(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("p")
    (tmp_path / "image").write_bytes(b"x")
    access = ["--repository", f"file://{tmp_path}/r", "--password-file", str(tmp_path / "password")]
    assert run_coeval("repo", "probe", *access) == {"writable": True, "repository": None}
    copied = run_coeval(
        "volume", "copy", *access, "--name", "a", "--source", str(tmp_path / "image"), "--init"
    )
    assert copied["bytes_total"] == 1
    assert "--if-absent" in run_coeval("repo", "init", *access, code=2)["error"]["message"]
    there = run_coeval("repo", "init", *access, "--if-absent")
    assert there["created"] is False
    assert run_coeval("repo", "probe", *access)["repository"] == there["repository"]
    (tmp_path / "password").write_text("q")
    assert run_coeval("repo", "probe", *access, code=1)["error"]["reason"] == "WrongPassword"
    assert not list((tmp_path / "r/tmp").iterdir())


def test_the_size_of_the_ranges_must_be_the_sources(cli: Cli, tmp_path: Path) -> None:
    first = cli.copy(tmp_path / "image", "a")
    (tmp_path / "r").write_text('{"size": 4999, "ranges": []}')
    words = (
        "--name",
        "a",
        "--source",
        str(tmp_path / "image"),
        "--parent",
        first,
        "--changed",
        str(tmp_path / "r"),
    )
    error = cli.run("volume", "copy", *words, code=1)["error"]
    assert (
        error["reason"] == "SourceSizeMismatch" and "4999" in error["message"] and "5000" in error["message"]
    )


def test_a_parent_alone_means_to_compare(cli: Cli, tmp_path: Path) -> None:
    image = tmp_path / "image"
    copy = ("volume", "copy", "--name", "a", "--source", str(image))
    first = cli.run(*copy)
    cli.run("commit", "--snapshot", first["snapshot"])
    same = cli.run(*copy, "--parent", "latest")
    assert (same["change_source"], same["bytes_read"], same["chunks_changed"]) == ("Compare", 5000, 0)


def test_progress_lines_and_a_small_result(cli: Cli, tmp_path: Path) -> None:
    command = ["volume", "copy", *cli.access, "--name", "a", "--source", str(tmp_path / "image")]
    result = tmp_path / "result"
    done = subprocess.run(
        [*COEVAL, *command, "--progress", "json", "--result", str(result)],
        capture_output=True,
        text=True,
        check=True,
    )
    last = json.loads(done.stderr.splitlines()[-1])["progress"]
    assert (last["bytesTotal"], last["bytesDone"], last["bytesRead"]) == (5000, 5000, 5000)
    assert set(last) == {"bytesTotal", "bytesDone", "bytesRead", "bytesAdded", "bytesPerSecond", "etaSeconds"}
    assert json.loads(result.read_text()) == json.loads(done.stdout)
    assert len(result.read_bytes()) <= 4096
    error = cli.run("verify", "--snapshot", "x" * 9000, "--result", str(result), code=1)["error"]
    assert len(result.read_bytes()) <= 4096 < len(error["message"])
    assert json.loads(result.read_text())["error"]["reason"] == "SnapshotNotFound"


def start_slow_copy(cli: Cli, folder: Path) -> subprocess.Popen[str]:
    """Start a copy of a large source and return once it has written a pack, with most still to do."""
    image = folder / "slow"
    with image.open("wb") as file:
        for _ in range(160):
            file.write(os.urandom(1 << 20))
    command = [*COEVAL, "volume", "copy", *cli.access, "--name", "a", "--source", str(image)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not any((cli.repository / "data").glob("*/*")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.001)
    return process


def test_sigterm_removes_the_lock_and_commits_nothing(cli: Cli, tmp_path: Path) -> None:
    process = start_slow_copy(cli, tmp_path)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert json.loads(out)["error"]["reason"] == "Interrupted"
    assert not list((cli.repository / "locks").iterdir())
    assert not list((cli.repository / "tmp").iterdir())
    repository = Repository.open(FileStore(str(cli.repository)), PASSWORD)
    assert not list(repository.names(Kind.SNAPSHOT))


@pytest.mark.restic
def test_a_killed_mover_leaves_orphans_only(cli: Cli, tmp_path: Path) -> None:
    from tests.tools.restic import Restic

    before = cli.copy(tmp_path / "image", "a")
    process = start_slow_copy(cli, tmp_path)
    process.kill()
    process.communicate()
    restic = Restic(cli.repository, PASSWORD)
    assert [listed["id"] for listed in restic.snapshots()] == [before]
    restic.run("unlock")
    checked = restic.attempt("check", "--read-data")
    assert checked.returncode == 0, checked.stderr
    cli.run("verify", "--snapshot", before)
    restic.run("prune", "--max-unused", "0")
    restic.check()
    after = cli.copy(tmp_path / "slow", "a")
    restic.check()
    cli.run("verify", "--snapshot", after)


def test_a_full_disk_is_named_and_can_still_be_cleaned(cli: Cli, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    with (tmp_path / "large").open("wb") as file:
        file.write(os.urandom(12 << 20))
    coeval = " ".join(COEVAL)
    access = f"--repository file://{small}/r --password-file {cli.password_file}"
    script = f"""
        mount -t tmpfs -o size=8m none {small}
        cp -r {cli.repository} {small}/r
        {coeval} volume copy {access} --name a --source {tmp_path}/image > {tmp_path}/first || exit 20
        {coeval} volume copy {access} --name a --source {tmp_path}/large > {tmp_path}/full && exit 21
        ls {small}/r/locks {small}/r/tmp > {tmp_path}/left
        dd if=/dev/zero of={small}/filler bs=4k 2> /dev/null
        id=$({sys.executable} -c 'import json; print(json.load(open("{tmp_path}/first"))["snapshot"])')
        {coeval} repo forget {access} --snapshot $id > {tmp_path}/forgotten || exit 22
    """
    unshare = shutil.which("unshare")
    assert unshare
    done = subprocess.run(
        [unshare, "--mount", "--map-root-user", "sh", "-c", script],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    error = json.loads((tmp_path / "full").read_text())["error"]
    assert error["reason"] == "RepositoryFull" and "prune" in error["message"]
    left = (tmp_path / "left").read_text().split()
    assert left == [f"{small}/r/locks:", f"{small}/r/tmp:"]
    assert len(json.loads((tmp_path / "forgotten").read_text())["forgotten"]) == 1


@pytest.mark.restic
@pytest.mark.parametrize("kind", ["file", "s3"])
def test_two_movers_make_and_fill_one_repository_at_once(
    tmp_path: Path, kind: str, gateway: S3Server
) -> None:
    from tests.tools.restic import Restic

    url, restic_url = f"file://{tmp_path}/r", f"{tmp_path}/r"
    if kind == "s3":
        place = f"{gateway.bucket()}/r"
        url, restic_url = f"s3://{place}", f"s3:{gateway.endpoint}/{place}"
    (tmp_path / "password").write_text(PASSWORD)
    access = ["--repository", url, "--password-file", str(tmp_path / "password")]
    shared = os.urandom(3 << 20)
    processes = []
    for name in ("a", "b", "c"):
        (tmp_path / name).write_bytes(shared + name.encode() * 100)
        words = ["volume", "copy", *access, "--init", "--name", name, "--source", str(tmp_path / name)]
        processes.append(subprocess.Popen([*COEVAL, *words], stdout=subprocess.PIPE, text=True))
    done = [json.loads(process.communicate(timeout=60)[0]) for process in processes]
    restic = Restic(restic_url, PASSWORD)
    restic.check()
    assert {listed["id"] for listed in restic.snapshots()} == {doc["snapshot"] for doc in done}
    for name, doc in zip("abc", done, strict=True):
        wanted = (tmp_path / name).read_bytes()
        assert restic.run("dump", doc["snapshot"], f"/disks/{name}/disk.img") == wanted
    assert len(list(open_store(url).entries(Kind.KEY))) == 1


SERVICE = {
    "--metadata-address": "localhost:1",
    "--metadata-ca": "/missing/ca",
    "--metadata-token-file": "/missing/token",
    "--snapshot-namespace": "n",
    "--snapshot-name": "s",
}


def with_service(**more: str | None) -> list[str]:
    """Options of the service, with some of them changed or left out."""
    options = SERVICE | {f"--{name.replace('_', '-')}": value for name, value in more.items()}
    return [word for option, value in options.items() if value is not None for word in (option, value)]


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--snapshot-name", "s"], "--snapshot-name means nothing without --changed-from"),
        (["--changed-from", "csi"], "needs --metadata-address"),
        *(
            (["--changed-from", "csi", *with_service(**{option[2:]: None})], f"needs {option}")
            for option in SERVICE
        ),
        (["--changed-from", "csi", *with_service(metadata_address="here")], "host:port"),
        (["--changed-from", "csi", *with_service()], "--metadata-token-file /missing/token"),
        (["--changed-from", "csi", *with_service(), "--base-handle", "h"], "--parent"),
        (["--changed-from", "csi-through-extents", *with_service()], "needs --base-handle"),
        (
            ["--parent", "PARENT", "--changed-from", "csi", *with_service(), "--base-handle", ""],
            "--base-handle",
        ),
        (
            [
                "--parent",
                "PARENT",
                "--changed",
                "R",
                "--changed-from",
                "csi",
                *with_service(),
                "--base-handle",
                "h",
            ],
            "exclude each other",
        ),
    ],
)
def test_options_of_the_service_belong_together(
    cli: Cli, tmp_path: Path, words: list[str], named: str
) -> None:
    parent = cli.copy(tmp_path / "image", "a")
    words = [parent if word == "PARENT" else word for word in words]
    command = ["volume", "copy", "--name", "a", "--source", str(tmp_path / "image"), *words]
    error = cli.run(*command, code=2)["error"]
    assert error["reason"] == "InvalidArgument" and named in error["message"]
    assert len(list((cli.repository / "snapshots").iterdir())) == 1


def test_a_data_command_does_not_load_what_only_a_service_needs() -> None:
    program = "import sys, coeval.mover.volumes, coeval.cli.changes; print('grpc' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout == "False\n"
