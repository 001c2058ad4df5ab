"""`KubeApi` over the official asyncio client: its configuration and transport, plain JSON, no models.

Models reject what a newer server sends, and decode ten times slower than JSON does.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPMethod
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import aiohttp
from kubernetes.aio import config as kube_config
from kubernetes.aio.client import Configuration
from kubernetes.aio.client.rest import RESTClientObject

from coeval import __version__
from coeval.kube.port import ApiError, Conflict, Forbidden, Invalid, Kind, NotFound, Object

FIELD_MANAGER = "coeval"
CONNECT_SECONDS = 10.0
REQUEST_SECONDS = 30.0
CHUNK = 500
LOG_BYTES = 1 << 20

MERGE_PATCH = "application/merge-patch+json"

_ERRORS: dict[int, type[ApiError]] = {
    400: Invalid,
    401: Forbidden,
    403: Forbidden,
    404: NotFound,
    405: Invalid,
    406: Invalid,
    409: Conflict,
    413: Invalid,
    415: Invalid,
    422: Invalid,
}

# Unknown fields are an error, not dropped with a warning: our CRDs and our code belong together.
_WRITE = {"fieldManager": FIELD_MANAGER, "fieldValidation": "Strict"}


class _Transport(RESTClientObject):  # type: ignore[misc]
    """One request is one request: aiohttp by itself repeats a PUT or DELETE whose connection was cut.

    A freeze sent twice, the first one unknown to us, would break the rules about ambiguous answers.
    """

    def _create_pool_manager(self) -> aiohttp.ClientSession:
        session: aiohttp.ClientSession = super()._create_pool_manager()
        session._retry_connection = False  # no public switch; test_client.py holds aiohttp to it
        return session


@dataclass(frozen=True, slots=True, repr=False)
class Credentials:
    """How this client logs in, for another that has to. Holds secrets: never log it."""

    server: str
    ca_path: str | None
    ca_data: str | None
    certificate_path: str | None
    key_path: str | None
    authorization: str | None  # the whole header
    verify: bool


class Client:
    """Calls an API server. Every method raises `ApiError`; status 0 means that the outcome is unknown."""

    def __init__(self, configuration: Any) -> None:
        configuration.retries = None
        configuration.client_go_retries = False
        self._configuration = configuration
        self._transport = _Transport(configuration)

    @classmethod
    async def connect(cls, kubeconfig: Path | None = None) -> "Client":
        """In a pod by its service account (the token is read again every minute), else by kubeconfig.

        Raises kubernetes.aio.config.ConfigException where neither is there.
        """
        configuration = Configuration()
        if kubeconfig is None and "KUBERNETES_SERVICE_HOST" in os.environ:
            kube_config.load_incluster_config(client_configuration=configuration)
        else:
            path = None if kubeconfig is None else str(kubeconfig)
            await kube_config.load_kube_config(config_file=path, client_configuration=configuration)
        return cls(configuration)

    async def close(self) -> None:
        """Close the connections."""
        await self._transport.close()

    async def credentials(self) -> Credentials:
        """As they are now; may be called from another event loop."""
        configuration = self._configuration
        auth = (await configuration.auth_settings()).get("BearerToken")
        return Credentials(
            server=configuration.host,
            ca_path=configuration.ssl_ca_cert,
            ca_data=configuration.ca_cert_data,
            certificate_path=configuration.cert_file,
            key_path=configuration.key_file,
            authorization=auth["value"] if auth else None,
            verify=configuration.verify_ssl,
        )

    async def get(self, kind: Kind, name: str, namespace: str | None = None) -> Object | None:
        """The object, or None where it does not exist."""
        try:
            found: Object = await self._json("GET", _path(kind, namespace, name))
        except NotFound:
            return None
        return found

    async def list(
        self, kind: Kind, namespace: str | None = None, *, labels: Mapping[str, str] | None = None
    ) -> list[Object]:
        """All objects, in chunks; in one piece when the server forgot the snapshot between two chunks."""
        path = _path(kind, namespace)
        query = {"labelSelector": ",".join(f"{k}={v}" for k, v in sorted(labels.items()))} if labels else {}
        try:
            items: list[Object] = []
            page = {"limit": str(CHUNK)}
            while True:
                answer = await self._json("GET", path, query | page)
                items += answer["items"]
                if not (more := answer["metadata"].get("continue")):
                    break
                page["continue"] = more
        except ApiError as error:
            if error.status != 410:
                raise
            items = (await self._json("GET", path, query))["items"]
        # Items of built-in kinds come without them, and an object must look the same however it was read.
        return [{"apiVersion": kind.api_version, "kind": kind.kind} | item for item in items]

    async def create(self, kind: Kind, body: Object, namespace: str | None = None) -> Object:
        """Create it. Conflict (reason AlreadyExists) where the name is taken."""
        made: Object = await self._json("POST", _path(kind, _home(body, namespace)), _WRITE, body)
        return made

    async def patch(self, kind: Kind, name: str, body: Object, namespace: str | None = None) -> Object:
        """JSON merge patch."""
        patched: Object = await self._json(
            "PATCH", _path(kind, namespace, name), _WRITE, body, content_type=MERGE_PATCH
        )
        return patched

    async def replace_status(self, kind: Kind, body: Object, namespace: str | None = None) -> Object:
        """Replace .status; the body's resourceVersion is the precondition."""
        path = _path(kind, _home(body, namespace), body["metadata"]["name"])
        replaced: Object = await self._json("PUT", f"{path}/status", _WRITE, body)
        return replaced

    async def delete(
        self,
        kind: Kind,
        name: str,
        namespace: str | None = None,
        *,
        uid: str | None = None,
        propagation: str = "Background",
    ) -> bool:
        """Ask for deletion. False where it was already gone."""
        options: Object = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": propagation}
        if uid is not None:
            options["preconditions"] = {"uid": uid}
        try:
            await self._json("DELETE", _path(kind, namespace, name), body=options)
        except NotFound:
            return False
        return True

    async def logs(self, pod: str, namespace: str, *, container: str, tail_lines: int) -> str:
        """The last lines of a container's log (at most 1 MiB); NotFound while there is none."""
        path = f"/api/v1/namespaces/{quote(namespace, safe='')}/pods/{quote(pod, safe='')}/log"
        query = {"container": container, "tailLines": str(tail_lines), "limitBytes": str(LOG_BYTES)}
        try:
            _, text = await self._request("GET", path, query)
        except Invalid as waiting:  # 400: the container has not started
            raise NotFound(404, waiting.reason, waiting.message) from None
        return text.decode(errors="replace")

    async def subresource(
        self,
        method: str,
        path: str,
        body: Object | None = None,
        *,
        timeout: float = REQUEST_SECONDS,  # noqa: ASYNC109
    ) -> Any:
        """Call an absolute API path; the decoded answer, None when it is empty, text when it is no JSON."""
        content_type, data = await self._request(method, path, body=body, seconds=timeout)
        if not data.strip():
            return None
        return _decode(data, path) if "json" in content_type else data.decode(errors="replace")

    async def create_token(
        self, service_account: str, namespace: str, *, audiences: Sequence[str], seconds: int
    ) -> str:
        """A bound token of the service account for these audiences."""
        name, home = quote(service_account, safe=""), quote(namespace, safe="")
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"audiences": list(audiences), "expirationSeconds": seconds},
        }
        answer = await self._json(
            "POST", f"/api/v1/namespaces/{home}/serviceaccounts/{name}/token", body=body
        )
        return str(answer["status"]["token"])

    async def _json(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        *,
        content_type: str = "application/json",
    ) -> Any:
        _, data = await self._request(method, path, query, body, content_type=content_type)
        return _decode(data, path)

    async def _request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        *,
        content_type: str = "application/json",
        seconds: float = REQUEST_SECONDS,
    ) -> tuple[str, bytes]:
        """(content type, body) of a 2xx answer; every other outcome is an ApiError."""
        url = self._configuration.host + path + (f"?{urlencode(query)}" if query else "")
        where = f"{method} {path}"
        for attempt in (1, 2):
            headers = {"User-Agent": f"coeval/{__version__}", "Content-Type": content_type}
            try:
                auth = (await self._configuration.auth_settings()).get("BearerToken")
                if auth:
                    headers[auth["key"]] = auth["value"]
                response = await self._transport.request(
                    HTTPMethod(method).value,
                    url,
                    headers=headers,
                    body=body,
                    _request_timeout=aiohttp.ClientTimeout(total=seconds, sock_connect=CONNECT_SECONDS),
                )
                data = await response.read()
                break
            except TimeoutError:
                raise ApiError(0, "Timeout", f"{where}: no answer within {seconds:.0f} s") from None
            except (aiohttp.ClientError, OSError) as error:
                # A kept connection may have been closed meanwhile; only reading is safe to repeat.
                if method != "GET" or attempt == 2:
                    raise ApiError(0, "ConnectionFailed", f"{where}: {error!r}") from error
        if not 200 <= response.status < 300:
            raise _error(response.status, response.headers, data, where)
        return response.headers.get("Content-Type", ""), data


def _path(kind: Kind, namespace: str | None, name: str | None = None) -> str:
    """Of a resource; without a namespace all of them. Names are quoted: a slash in one leads nowhere else."""
    parts = ["apis", kind.group, kind.version] if kind.group else ["api", kind.version]
    if kind.namespaced and namespace:
        parts += ["namespaces", namespace]
    elif kind.namespaced and name is not None:
        raise ValueError(f"{kind.plural} {name!r}: no namespace given")
    parts += [kind.plural] if name is None else [kind.plural, name]
    if "" in parts or name in (".", ".."):
        raise ValueError(f"{kind.plural}: empty or relative name in {parts}")
    return "/" + "/".join(quote(part, safe="") for part in parts)


def _home(body: Object, namespace: str | None) -> str | None:
    return namespace or body["metadata"].get("namespace")


def _decode(data: bytes, path: str) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        raise ApiError(0, "NotJson", f"{path}: the answer is not JSON: {data[:80]!r}") from None


def _error(status: int, headers: Mapping[str, str], data: bytes, where: str) -> ApiError:
    """The server's Status object, or whatever an intermediary said instead."""
    reason, message, retry_after = "", "", headers.get("Retry-After")
    try:
        said = json.loads(data)
        reason, message = said.get("reason") or "", said.get("message") or ""
        retry_after = retry_after or (said.get("details") or {}).get("retryAfterSeconds")
    except (ValueError, AttributeError):
        message = data[:500].decode(errors="replace").strip()
    try:
        seconds = None if retry_after is None else float(retry_after)
    except ValueError:
        seconds = None  # the form with a date; our own backoff serves
    error = _ERRORS.get(status, ApiError)
    return error(status, reason or f"Http{status}", message or where, retry_after=seconds)
