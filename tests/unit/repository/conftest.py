from tests.tools.repository_fixtures import no_waiting, repository, store
from tests.tools.server_fixtures import (
    azurite_server,
    gateway,
    gcs_server,
    moto_server,
    s3_server,
    versitygw_server,
)

__all__ = [
    "azurite_server",
    "gateway",
    "gcs_server",
    "moto_server",
    "no_waiting",
    "repository",
    "s3_server",
    "store",
    "versitygw_server",
]
