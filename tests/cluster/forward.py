"""Relays connections from a socket opened in another network namespace.

A socket belongs for ever to the network namespace in which it was opened. `up` opens a listener on the
host's loopback and hands it down; this process runs inside the cluster's namespace, accepts from the one and
connects to the other.
Standard library only.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys

CHUNK_BYTES = 256 * 1024


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(CHUNK_BYTES):
        writer.write(data)
        await writer.drain()
    writer.write_eof()


async def serve(listener: socket.socket, host: str, port: int) -> None:
    """Relays until cancelled; a connection ends when both directions ended or one of them broke."""

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            target_reader, target_writer = await asyncio.open_connection(host, port)
        except OSError:
            writer.close()
            return
        try:
            with contextlib.suppress(OSError):
                await asyncio.gather(_pump(reader, target_writer), _pump(target_reader, writer))
        finally:
            writer.close()
            target_writer.close()

    server = await asyncio.start_server(relay, sock=listener)
    async with server:
        await server.serve_forever()


def main() -> None:
    """Arguments: the listener's file descriptor, the target's address, the target's port."""
    fd, host, port = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    asyncio.run(serve(socket.socket(fileno=fd), host, port))


if __name__ == "__main__":
    main()
