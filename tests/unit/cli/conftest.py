from tests.tools.repository_fixtures import no_waiting, repository, store
from tests.tools.server_fixtures import gateway, versitygw_server

__all__ = ["gateway", "no_waiting", "repository", "store", "versitygw_server"]
