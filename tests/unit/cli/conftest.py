from pathlib import Path

import pytest

from tests.tools.repositories import Cli
from tests.tools.repository_fixtures import no_waiting, repository, store
from tests.tools.server_fixtures import gateway, versitygw_server

__all__ = ["gateway", "no_waiting", "repository", "store", "versitygw_server"]


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    (tmp_path / "image").write_bytes(b"image" * 1000)
    return Cli(tmp_path)
