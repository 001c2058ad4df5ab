"""The one door to the API server: plain JSON in and out, so that a newer server's fields pass through."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Kind:
    """A resource as its URL names it; `kind` is the name in the object."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """`apiVersion` of the objects."""
        return f"{self.group}/{self.version}" if self.group else self.version


class ApiError(Exception):
    """A call that the API server answered with an error, or that got no answer.

    `status` is the HTTP status, 0 when the outcome is unknown (time-out, cut connection): then observe again.
    """

    def __init__(self, status: int, reason: str, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message
        self.retry_after = retry_after


class NotFound(ApiError):
    """404: there is no such object (or no such kind)."""


class Conflict(ApiError):
    """409: AlreadyExists, a stale resourceVersion, or a precondition that does not hold."""


class Invalid(ApiError):
    """422 or 400: sent again unchanged it will be refused again."""


class Forbidden(ApiError):
    """401 or 403: our rights do not allow the call."""


class KubeApi(Protocol):
    """What the operator asks of an API server. Every call is live; nothing here caches."""

    async def get(self, kind: Kind, name: str, namespace: str | None = None) -> Object | None:
        """The object, or None where it does not exist."""

    async def list(
        self, kind: Kind, namespace: str | None = None, *, labels: Mapping[str, str] | None = None
    ) -> list[Object]:
        """All objects (of one namespace, or of all), read in chunks; `labels` selects on the server."""

    async def create(self, kind: Kind, body: Object, namespace: str | None = None) -> Object:
        """Create it. Conflict (reason AlreadyExists) where the name is taken."""

    async def patch(self, kind: Kind, name: str, body: Object, namespace: str | None = None) -> Object:
        """JSON merge patch; put metadata.resourceVersion or metadata.uid into the body as a precondition."""

    async def replace_status(self, kind: Kind, body: Object, namespace: str | None = None) -> Object:
        """Replace .status; body carries metadata.resourceVersion. Conflict when it is stale."""

    async def delete(
        self,
        kind: Kind,
        name: str,
        namespace: str | None = None,
        *,
        uid: str | None = None,
        propagation: str = "Background",
    ) -> bool:
        """Ask for deletion with the uid as precondition. False where it was already gone."""

    async def logs(self, pod: str, namespace: str, *, container: str, tail_lines: int) -> str:
        """The last lines of a container's log; NotFound while there is none."""

    async def subresource(
        self,
        method: str,
        path: str,
        body: Object | None = None,
        *,
        timeout: float = 30.0,  # noqa: ASYNC109
    ) -> Any:
        """Call an absolute API path (KubeVirt's freeze, guestosinfo, …); the answer, None when empty."""

    async def create_token(
        self, service_account: str, namespace: str, *, audiences: Sequence[str], seconds: int
    ) -> str:
        """A bound token of the service account for these audiences."""
