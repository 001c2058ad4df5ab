"""Fixtures of S3 servers, each started once for the folder of tests that takes them in its conftest."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from coeval.repository.cloud import open_cloud
from coeval.repository.object_store import ObjectStore, Patience

from tests.tools.azurite import Azurite, azurite, installable
from tests.tools.gcs_front import GcsFront, gcs_front
from tests.tools.servers import S3Server, moto, versitygw

QUICK = Patience(deadline=5.0, first_answer=0.5, shortest=0.01, longest=0.05)
"""For tests of what happens, not of how long it takes."""

Opened = Callable[..., ObjectStore]


@pytest.fixture(scope="session")
def versitygw_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with versitygw(tmp_path_factory.mktemp("versitygw")) as server:
        yield server


@pytest.fixture(scope="session")
def moto_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with moto(tmp_path_factory.mktemp("moto")) as server:
        yield server


@pytest.fixture(scope="session")
def azurite_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Azurite]:
    if not installable():
        pytest.skip("Azurite needs node and npm")
    with azurite(tmp_path_factory.mktemp("azurite")) as server:
        yield server


@pytest.fixture(scope="session")
def gcs_server(moto_server: S3Server) -> Iterator[GcsFront]:
    with gcs_front(moto_server) as server:
        yield server


@pytest.fixture(params=["versitygw", "moto"])
def s3_server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """Each server in turn, with its variables in the environment."""
    server: S3Server = request.getfixturevalue(f"{request.param}_server")
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    return server


@pytest.fixture
def gateway(versitygw_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """versitygw, which checks credentials, with its variables in the environment."""
    for name, value in versitygw_server.environment().items():
        monkeypatch.setenv(name, value)
    return versitygw_server


def open_bucket(bucket: str, patience: Patience = QUICK, scheme: str = "s3") -> ObjectStore:
    """A store on the server that the environment names."""
    return open_cloud(f"{scheme}://{bucket}/some/prefix", patience)
