from tests.tools.repository_fixtures import no_waiting, repository, store

__all__ = ["no_waiting", "repository", "store"]
