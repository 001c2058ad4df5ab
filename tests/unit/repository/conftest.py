from tests.tools.repository_fixtures import no_waiting, repository, store
from tests.tools.server_fixtures import gateway, moto_server, s3_server, versitygw_server

__all__ = ["gateway", "moto_server", "no_waiting", "repository", "s3_server", "store", "versitygw_server"]
