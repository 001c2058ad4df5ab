"""The forwarder relays whole conversations, in both directions, with half-closed ends."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from tests.cluster import forward

PAYLOAD = bytes(range(256)) * 8192


async def answer_when_all_is_there(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Reads to the end, then answers: works only if the relay passes on the end of one direction."""
    data = await reader.read()
    writer.write(data[::-1])
    writer.close()


@pytest.fixture
async def relay() -> AsyncIterator[int]:
    """The port of a relay in front of a server that answers."""
    server = await asyncio.start_server(answer_when_all_is_there, "127.0.0.1", 0)
    port: int = server.sockets[0].getsockname()[1]
    listener = socket.create_server(("127.0.0.1", 0))
    task = asyncio.create_task(forward.serve(listener, "127.0.0.1", port))
    yield listener.getsockname()[1]
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    server.close()


async def ask(port: int) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(PAYLOAD)
    writer.write_eof()
    answer = await reader.read()
    writer.close()
    return answer


async def test_many_conversations_at_once(relay: int) -> None:
    answers = await asyncio.gather(*(ask(relay) for _ in range(8)))
    assert answers == [PAYLOAD[::-1]] * 8


async def test_a_target_that_is_not_there_ends_the_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        nobody = free.getsockname()[1]
    listener = socket.create_server(("127.0.0.1", 0))
    task = asyncio.create_task(forward.serve(listener, "127.0.0.1", nobody))
    reader, writer = await asyncio.open_connection(*listener.getsockname())
    assert await reader.read() == b""
    writer.close()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
