"""A repository in a container of Azure's blob store, as Azurite has it; its conformance is in test_stores."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from coeval.repository import repository
from coeval.repository.errors import BucketNotFound, CredentialsRefused, InvalidArgument
from coeval.repository.object_store import ObjectStore
from coeval.repository.store import CONFIG_NAME, Kind, open_store

from tests.tools.azurite import KEY, Azurite
from tests.tools.fault_proxy import Exchange, FaultProxy, answers, cuts_answer, fault_proxy, loses_answer
from tests.tools.repositories import CHEAP, Cli
from tests.tools.server_fixtures import open_bucket

NAME = "ab" * 32
MIB = 1 << 20
T1, T2 = "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"


@pytest.fixture
def server(azurite_server: Azurite, monkeypatch: pytest.MonkeyPatch) -> Azurite:
    for name, value in azurite_server.environment().items():
        monkeypatch.setenv(name, value)
    return azurite_server


@pytest.fixture
def proxy(server: Azurite, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    with fault_proxy(server.endpoint) as proxy:
        monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", proxy.endpoint + urlsplit(server.endpoint).path)
        yield proxy


def opened(container: str) -> ObjectStore:
    return open_bucket(container, scheme="az")


def test_the_whole_way_over_azure(
    server: Azurite, proxy: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a few faults on the way: the result must not show them."""
    monkeypatch.setattr(repository, "ScryptCost", lambda: CHEAP)
    cli = Cli(tmp_path, f"az://{server.bucket()}/prod/shop/db")
    content = os.urandom(2 * MIB) + bytes(MIB) + b"some text " * 100_000
    changed = content[:MIB] + b"after" + content[MIB + 5 :]
    (tmp_path / "t1").write_bytes(content)
    (tmp_path / "t2").write_bytes(changed)
    proxy.fail("^PUT .*/config", loses_answer)
    assert cli.run("repo", "init")["created"]
    proxy.fail("^PUT .*/data/", answers(503, "ServerBusy"))
    proxy.fail("^GET .*prefix=.*index", cuts_answer(30))
    interim = cli.copy(tmp_path / "t2", "root", "--interim", "--as-of", T2)
    step = ("--name", "root", "--snapshot", interim, "--source", str(tmp_path / "t1"), "--as-of", T1)
    part = cli.run("volume", "retime", *step)["snapshot"]
    backup = cli.run("commit", "--snapshot", part, "--forget-parts")["snapshot"]
    proxy.fail("^GET .*/data/", cuts_answer(10))
    target = tmp_path / "restored"
    cli.run("volume", "restore", "--snapshot", backup, "--name", "root", "--target", str(target))
    assert target.read_bytes() == content and proxy.spent
    cli.run("verify", "--snapshot", backup)
    store = open_store(cli.url)
    assert all(not list(store.entries(kind)) for kind in (Kind.LOCK, Kind.PROBE))


def test_a_removal_that_azure_is_too_busy_for_is_tried_again(server: Azurite, proxy: FaultProxy) -> None:
    """Its answer is 202, and within that the one that matters."""
    store = opened(server.bucket())

    def busy(exchange: Exchange) -> None:
        answer = exchange.ask()
        assert b"HTTP/1.1 404" in answer
        exchange.client.sendall(answer.replace(b"HTTP/1.1 404", b"HTTP/1.1 503"))

    proxy.fail("^POST .*comp=batch", busy)
    store.remove(Kind.LOCK, NAME)
    assert proxy.requests("^POST .*comp=batch") == 2


def test_a_missing_container_is_named(server: Azurite) -> None:
    store = opened("no-such-container")
    for action in (
        lambda: store.save(Kind.PACK, NAME, [b"x"]),
        lambda: store.create(Kind.CONFIG, CONFIG_NAME, [b"x"]),
        lambda: store.load(Kind.PACK, NAME),
        lambda: store.load_range(Kind.PACK, NAME, 0, 1),
        lambda: list(store.entries(Kind.CONFIG)),
        lambda: store.remove(Kind.LOCK, NAME),
        store.sweep,
    ):
        with pytest.raises(BucketNotFound, match=f"az://no-such-container/some/prefix at {server.endpoint}"):
            action()


def test_a_wrong_key_is_refused_and_never_repeated(server: Azurite, monkeypatch: pytest.MonkeyPatch) -> None:
    container = server.bucket()
    wrong = base64.b64encode(b"another key").decode()
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", wrong)
    with pytest.raises(CredentialsRefused) as raised:
        opened(container).load(Kind.PACK, NAME)
    assert wrong not in str(raised.value) and KEY not in str(raised.value)
    assert "AZURE_STORAGE_ACCOUNT_KEY" in str(raised.value)


def test_an_endpoint_with_credentials_is_refused(server: Azurite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", "http://me:secret@host/account")
    with pytest.raises(InvalidArgument, match="AZURE_STORAGE_ENDPOINT: give https://host") as raised:
        opened("container")
    assert "secret" not in str(raised.value)
