"""A store that fails now and then: the command succeeds, and says what was tried again, why and how often."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from coeval.cli import retries
from coeval.cli.main import main
from coeval.repository import repository

from tests.tools.fault_proxy import (
    Exchange,
    FaultProxy,
    answers,
    cuts_answer,
    cuts_request,
    fault_proxy,
)
from tests.tools.repositories import CHEAP, Cli
from tests.tools.servers import ACCESS_KEY, SECRET_KEY, S3Server

TOKEN = "a-token-as-long-as-a-real-one-" * 4


@pytest.fixture
def proxy(gateway: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    with fault_proxy(gateway.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        yield proxy


@pytest.fixture
def cli(gateway: S3Server, proxy: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    monkeypatch.setattr(repository, "ScryptCost", lambda: CHEAP)
    (tmp_path / "image").write_bytes(b"image" * 1000)
    cli = Cli(tmp_path, f"s3://{gateway.bucket()}/x")
    assert "retries" not in cli.run("repo", "init")
    return cli


def copy(cli: Cli, tmp_path: Path, *more: str) -> int:
    """Copy the image; give the exit code."""
    words = ["volume", "copy", *cli.access, "--name", "root", "--source", str(tmp_path / "image"), *more]
    with pytest.raises(SystemExit) as ended:
        main([*words, "--result", str(tmp_path / "result")])
    return int(ended.value.code or 0)


def test_every_retry_is_told_with_object_attempt_reason_and_wait(
    cli: Cli,
    proxy: FaultProxy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(retries, "TELL_SECONDS", 0.0)
    proxy.fail("^PUT .*/data/", answers(503, "SlowDown"))
    proxy.fail("^PUT .*/data/", cuts_request(10))
    proxy.fail("^GET .*prefix=x/index|^GET .*prefix=x%2Findex", cuts_answer(30))
    assert copy(cli, tmp_path, "--progress", "json") == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["retries"] == 3 == json.loads((tmp_path / "result").read_text())["retries"]
    lines = [json.loads(line) for line in err.splitlines()]
    told = [line["retry"] for line in lines if "retry" in line]
    assert len(told) == 3 and lines[-1]["progress"]["retries"] == 3
    place = f"{re.escape(cli.url)} at {proxy.endpoint}: cannot "
    pack, wait = r"write data/[0-9a-f]{64}: ", r"the next comes in 0\.\d s"
    for pattern in (
        rf"{place}{pack}it answers 503 SlowDown \(as the test says\); attempt \d failed, {wait}",
        rf"{place}{pack}the (connection was cut|request could not be sent); attempt \d failed, {wait}",
        rf"{place}list index/: .*; attempt 1 failed, {wait}",
    ):
        assert [line for line in told if re.fullmatch(pattern, line)], (pattern, told)


def test_a_store_that_fails_all_the_time_says_so_now_and_then(
    cli: Cli,
    proxy: FaultProxy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(retries, "TELL_SECONDS", 3600.0)
    proxy.fail("^PUT .*/data/", answers(503, "SlowDown"), times=3)
    assert copy(cli, tmp_path) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["retries"] == 3
    [line] = err.splitlines()
    assert line.startswith(f"{cli.url} at ") and "attempt 1 failed" in line


def test_a_failure_counts_them_too(
    cli: Cli, proxy: FaultProxy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    proxy.fail("^PUT .*/data/", answers(503, "SlowDown"))
    proxy.fail("^PUT .*/data/", answers(403, "AccessDenied"), times=2)
    assert copy(cli, tmp_path) == 1
    for text in (capsys.readouterr().out, (tmp_path / "result").read_text()):
        doc = json.loads(text)
        assert doc["error"]["reason"] == "CredentialsRefused" and doc["retries"] == 1


@pytest.mark.parametrize("status", [500, 400])
def test_no_secret_is_told_even_if_the_server_repeats_it(
    cli: Cli,
    proxy: FaultProxy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    status: int,
) -> None:
    def echoes(exchange: Exchange) -> None:
        exchange.read_body()
        assert TOKEN.encode() in exchange.head
        said = re.search(rb"(?i)x-amz-security-token[^\r]*", exchange.head)
        body = b"<Error><Code>Odd</Code><Message>bad " + (said[0] if said else b"") + b"</Message></Error>"
        head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        exchange.client.sendall(head.encode() + body)

    monkeypatch.setattr(retries, "TELL_SECONDS", 0.0)
    monkeypatch.setenv("AWS_SESSION_TOKEN", TOKEN)
    proxy.fail("", echoes)
    proxy.fail("", answers(403, "ExpiredToken"), times=99)
    assert copy(cli, tmp_path) == 1
    out, err = capsys.readouterr()
    assert f"it answers {status} Odd" in out + err
    assert not any(secret in out + err for secret in (TOKEN[:20], ACCESS_KEY, SECRET_KEY))
