"""The adapter against a real HTTP server on loopback: what is sent, and what every kind of answer becomes."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from coeval.kube import client as client_module
from coeval.kube.client import Client
from coeval.kube.kinds import BACKUP_REPOSITORY, JOB, POD, VM_BACKUP
from coeval.kube.port import ApiError, Conflict, Forbidden, Invalid, KubeApi, NotFound
from kubernetes.aio.client import Configuration

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Server:
    """Answers from a list; the last answer stays."""

    answers: list[Any] = field(default_factory=list)
    seen: list[dict[str, Any]] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        text = await request.text()
        self.seen.append(
            {
                "method": request.method,
                "path": request.raw_path.partition("?")[0],
                "query": dict(request.query),
                "type": request.headers.get("Content-Type"),
                "auth": request.headers.get("Authorization"),
                "body": json.loads(text) if text else None,
            }
        )
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if callable(answer):
            return await answer(request)  # type: ignore[no-any-return]
        if isinstance(answer, web.Response):
            return web.Response(status=answer.status, body=answer.body, headers=answer.headers)
        return web.json_response(answer)


@asynccontextmanager
async def serving(*answers: Any) -> AsyncIterator[tuple[Client, Server]]:
    server = Server(list(answers))
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", server.handle)
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    configuration = Configuration(host=f"http://127.0.0.1:{port}")
    configuration.api_key["BearerToken"] = "bearer t0ken"
    client = Client(configuration)
    try:
        yield client, server
    finally:
        await client.close()
        await runner.cleanup()


def status(code: int, reason: str, message: str = "said so", **details: Any) -> web.Response:
    body = {"kind": "Status", "code": code, "reason": reason, "message": message, "details": details}
    return web.json_response(body, status=code)


async def cut(request: web.Request) -> web.StreamResponse:
    """The connection ends without an answer: nobody knows what happened."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


OBJECT = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j", "namespace": "ns"}}
STRICT = {"fieldManager": "coeval", "fieldValidation": "Strict"}


async def test_what_is_sent() -> None:
    async with serving(OBJECT) as (client, server):
        port: KubeApi = client
        await port.get(JOB, "j", "ns")
        await port.create(JOB, OBJECT)
        await port.patch(JOB, "j", {"metadata": {"labels": None}}, "ns")
        await port.replace_status(VM_BACKUP, OBJECT)
        await port.delete(JOB, "j", "ns", uid="u", propagation="Foreground")
        await port.get(BACKUP_REPOSITORY, "main", "ignored")
        sent = [(s["method"], s["path"], s["query"], s["type"]) for s in server.seen]
        jobs = "/apis/batch/v1/namespaces/ns/jobs"
        assert sent == [
            ("GET", f"{jobs}/j", {}, "application/json"),
            ("POST", jobs, STRICT, "application/json"),
            ("PATCH", f"{jobs}/j", STRICT, "application/merge-patch+json"),
            ("PUT", "/apis/coeval.dev/v1alpha1/namespaces/ns/vmbackups/j/status", STRICT, "application/json"),
            ("DELETE", f"{jobs}/j", {}, "application/json"),
            ("GET", "/apis/coeval.dev/v1alpha1/backuprepositories/main", {}, "application/json"),
        ]
        assert server.seen[1]["body"] == OBJECT
        assert server.seen[2]["body"] == {"metadata": {"labels": None}}
        assert server.seen[4]["body"]["preconditions"] == {"uid": "u"}
        assert server.seen[4]["body"]["propagationPolicy"] == "Foreground"
        assert {s["auth"] for s in server.seen} == {"bearer t0ken"}


async def test_names_cannot_leave_their_place_in_the_path() -> None:
    async with serving({}) as (client, server):
        await client.get(POD, "../secrets/x?y", "a/b")
        assert server.seen[0]["path"] == "/api/v1/namespaces/a%2Fb/pods/..%2Fsecrets%2Fx%3Fy"
        for name, namespace in (("", "ns"), ("..", "ns"), ("p", None)):
            with pytest.raises(ValueError, match="pods"):
                await client.get(POD, name, namespace)


@pytest.mark.parametrize(
    ("answer", "error", "reason"),
    [
        (status(400, "BadRequest"), Invalid, "BadRequest"),
        (status(401, "Unauthorized"), Forbidden, "Unauthorized"),
        (status(403, "Forbidden"), Forbidden, "Forbidden"),
        (status(404, "NotFound"), NotFound, "NotFound"),
        (status(409, "AlreadyExists"), Conflict, "AlreadyExists"),
        (status(410, "Expired"), ApiError, "Expired"),
        (status(422, "Invalid"), Invalid, "Invalid"),
        (status(429, "TooManyRequests", retryAfterSeconds=7), ApiError, "TooManyRequests"),
        (status(500, "InternalError"), ApiError, "InternalError"),
        (web.Response(status=502, text="<html>bad gateway"), ApiError, "Http502"),
        (web.Response(status=200, text="<html>login"), ApiError, "NotJson"),
    ],
)
async def test_errors_are_mapped_once(answer: web.Response, error: type[ApiError], reason: str) -> None:
    async with serving(answer) as (client, _):
        with pytest.raises(ApiError) as raised:
            await client.create(JOB, OBJECT)
        assert type(raised.value) is error
        assert raised.value.reason == reason
        assert raised.value.status == (0 if reason == "NotJson" else answer.status)
        assert raised.value.retry_after == (7 if answer.status == 429 else None)


async def test_retry_after_comes_from_the_header_too() -> None:
    for value, seconds in (("3", 3.0), ("Wed, 21 Oct 2026 07:28:00 GMT", None)):
        answer = web.Response(status=503, text="", headers={"Retry-After": value})
        async with serving(answer) as (client, _):
            with pytest.raises(ApiError) as raised:
                await client.create(JOB, OBJECT)
            assert raised.value.retry_after == seconds


async def test_absence_is_no_error_where_the_port_says_so() -> None:
    async with serving(status(404, "NotFound")) as (client, _):
        assert await client.get(JOB, "j", "ns") is None
        assert await client.delete(JOB, "j", "ns") is False
        with pytest.raises(NotFound):
            await client.patch(JOB, "j", {}, "ns")


@pytest.mark.parametrize("method", ["PUT", "DELETE", "POST", "PATCH"])
async def test_a_change_whose_answer_is_lost_is_never_sent_again(method: str) -> None:
    async with serving(cut) as (client, server):
        with pytest.raises(ApiError) as raised:
            await client.subresource(method, "/apis/x/freeze", {"unfreezeTimeout": "60s"})
        assert (raised.value.status, raised.value.reason) == (0, "ConnectionFailed")
        assert len(server.seen) == 1


async def test_a_change_over_a_kept_connection_is_not_repeated_either() -> None:
    async with serving({}, cut, {}) as (client, server):
        await client.subresource("GET", "/warm")
        with pytest.raises(ApiError):
            await client.subresource("PUT", "/freeze")
        assert [s["method"] for s in server.seen] == ["GET", "PUT"]


async def test_reading_is_repeated_once() -> None:
    async with serving(cut, OBJECT) as (client, server):
        assert await client.get(JOB, "j", "ns") == OBJECT
        assert len(server.seen) == 2
    async with serving(cut) as (client, server):
        with pytest.raises(ApiError):
            await client.get(JOB, "j", "ns")
        assert len(server.seen) == 2


async def test_no_answer_in_time_is_an_unknown_outcome() -> None:
    ended = asyncio.Event()

    async def late(request: web.Request) -> web.StreamResponse:
        await ended.wait()
        return web.Response()

    async with serving(late) as (client, server):
        with pytest.raises(ApiError) as raised:
            await client.subresource("PUT", "/freeze", timeout=0.05)
        ended.set()
        assert (raised.value.status, raised.value.reason) == (0, "Timeout")
        assert len(server.seen) == 1


async def test_nobody_listens() -> None:
    client = Client(Configuration(host="http://127.0.0.1:1"))
    with pytest.raises(ApiError) as raised:
        await client.get(JOB, "j", "ns")
    assert raised.value.status == 0
    await client.close()


async def test_list_reads_all_chunks_and_completes_the_items() -> None:
    first = {"metadata": {"continue": "c1"}, "items": [{"metadata": {"name": "a"}}]}
    last = {"metadata": {}, "items": [{"metadata": {"name": "b"}}]}
    async with serving(first, last) as (client, server):
        found = await client.list(POD, "ns", labels={"b": "2", "a": "1"})
        assert [(o["apiVersion"], o["kind"], o["metadata"]["name"]) for o in found] == [
            ("v1", "Pod", "a"),
            ("v1", "Pod", "b"),
        ]
        assert [s["query"] for s in server.seen] == [
            {"labelSelector": "a=1,b=2", "limit": "500"},
            {"labelSelector": "a=1,b=2", "limit": "500", "continue": "c1"},
        ]
        await client.list(POD)
        assert server.seen[-1]["path"] == "/api/v1/pods"


async def test_list_starts_over_in_one_piece_when_its_snapshot_expired() -> None:
    first = {"metadata": {"continue": "c1"}, "items": [{"metadata": {"name": "stale"}}]}
    whole = {"metadata": {}, "items": [{"metadata": {"name": "a"}}, {"metadata": {"name": "b"}}]}
    async with serving(first, status(410, "Expired"), whole) as (client, server):
        assert [o["metadata"]["name"] for o in await client.list(POD, "ns")] == ["a", "b"]
        assert server.seen[-1]["query"] == {}


async def test_logs() -> None:
    async with serving(web.Response(text="1\n2\n"), status(400, "BadRequest", "waiting")) as (client, server):
        assert await client.logs("p", "ns", container="c", tail_lines=2) == "1\n2\n"
        assert server.seen[0]["query"] == {"container": "c", "tailLines": "2", "limitBytes": "1048576"}
        with pytest.raises(NotFound, match="waiting"):
            await client.logs("p", "ns", container="c", tail_lines=2)


async def test_subresource_answers() -> None:
    async with serving(web.Response(), {"a": 1}, web.Response(text="plain")) as (client, _):
        assert await client.subresource("PUT", "/x") is None
        assert await client.subresource("GET", "/x") == {"a": 1}
        assert await client.subresource("GET", "/x") == "plain"


async def test_token() -> None:
    async with serving({"status": {"token": "abc"}}) as (client, server):
        assert await client.create_token("sa", "ns", audiences=["cbt"], seconds=600) == "abc"
        assert server.seen[0]["path"] == "/api/v1/namespaces/ns/serviceaccounts/sa/token"
        assert server.seen[0]["body"]["spec"] == {"audiences": ["cbt"], "expirationSeconds": 600}


async def test_in_a_pod_the_token_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from kubernetes.aio.config import incluster_config

    token, ca = tmp_path / "token", tmp_path / "ca.crt"
    token.write_text("first")
    ca.write_text("not a certificate, never loaded: the server here speaks plain HTTP")
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(token))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(ca))
    monkeypatch.setattr(client_module, "_Transport", lambda configuration: None)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    client = await Client.connect()
    configuration = client._configuration
    assert configuration.host == "https://10.0.0.1:443"
    assert (await configuration.auth_settings())["BearerToken"]["value"] == "bearer first"
    token.write_text("second")
    loader = configuration.refresh_api_key_hook.__closure__[0].cell_contents
    loader.token_expires_at = loader.token_expires_at.replace(year=2000)
    await configuration.auth_settings()
    assert (await configuration.auth_settings())["BearerToken"]["value"] == "bearer second"
