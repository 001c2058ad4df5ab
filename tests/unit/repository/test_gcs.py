"""A repository in a bucket by Google's XML API; its conformance is in test_stores."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from coeval.repository import repository
from coeval.repository.errors import BucketNotFound, CredentialsRefused, InvalidArgument
from coeval.repository.store import CONFIG_NAME, Kind, open_store

from tests.tools.fault_proxy import answers, cuts_answer, loses_answer
from tests.tools.gcs_front import GcsFront
from tests.tools.repositories import CHEAP, Cli
from tests.tools.server_fixtures import open_bucket

MIB = 1 << 20


@pytest.fixture
def server(gcs_server: GcsFront, monkeypatch: pytest.MonkeyPatch) -> GcsFront:
    for name, value in gcs_server.environment().items():
        monkeypatch.setenv(name, value)
    return gcs_server


def test_there_and_back_with_faults_on_the_way(
    server: GcsFront, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repository, "ScryptCost", lambda: CHEAP)
    cli = Cli(tmp_path, f"gs://{server.bucket()}/prod/shop/db")
    content = os.urandom(2 * MIB) + bytes(MIB) + b"some text " * 100_000
    (tmp_path / "disk").write_bytes(content)
    server.proxy.fail("^PUT .*config", loses_answer)
    assert cli.run("repo", "init")["created"]
    server.proxy.fail("^PUT .*data", answers(503, "ServiceUnavailable"))
    copy = cli.copy(tmp_path / "disk", "root")
    server.proxy.fail("^GET .*data", cuts_answer(10))
    target = tmp_path / "restored"
    cli.run("volume", "restore", "--snapshot", copy, "--name", "root", "--target", str(target))
    assert target.read_bytes() == content and server.proxy.spent
    assert not list(open_store(cli.url).entries(Kind.LOCK))


def test_refusals_are_named(server: GcsFront) -> None:
    with pytest.raises(BucketNotFound, match="gs://nowhere"):
        open_bucket("nowhere", scheme="gs").load(Kind.CONFIG, CONFIG_NAME)
    server.proxy.fail("^GET ", answers(401, "AuthenticationRequired"))
    with pytest.raises(CredentialsRefused, match="GOOGLE_APPLICATION_CREDENTIALS"):
        open_bucket(server.bucket(), scheme="gs").load(Kind.CONFIG, CONFIG_NAME)


def test_an_address_is_https_unless_it_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_BASE_URL", "https://user:secret@host")
    with pytest.raises(InvalidArgument, match="GOOGLE_BASE_URL") as refused:
        open_bucket("bucket", scheme="gs")
    assert "secret" not in str(refused.value)
