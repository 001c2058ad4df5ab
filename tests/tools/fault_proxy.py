"""An HTTP proxy in front of a real server that makes chosen requests fail in chosen ways.

One request a connection, both ways: the server's answer is over when its connection ends.
"""

from __future__ import annotations

import contextlib
import re
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

PIECE = 1 << 16


@dataclass
class Exchange:
    """One request, as far as it was read, and the way to its two ends."""

    client: socket.socket
    upstream: tuple[str, int]
    head: bytes
    body: bytes
    over: threading.Event
    """Set when the proxy ends: what hangs lets go."""

    @property
    def line(self) -> str:
        """Method and path: `GET /bucket/key?query`."""
        return self.head.split(b" HTTP/", 1)[0].decode()

    def read_body(self, most: int | None = None) -> None:
        """Read the rest of the request's body, or until `most` bytes of it are there."""
        length = re.search(rb"\r\ncontent-length: *(\d+)", self.head, re.IGNORECASE)
        wanted = int(length[1]) if length else 0
        wanted = wanted if most is None else min(wanted, most)
        while len(self.body) < wanted and (data := self.client.recv(PIECE)):
            self.body += data

    def ask(self) -> bytes:
        """Send the request on; give the server's whole answer."""
        self.read_body()
        with socket.create_connection(self.upstream) as server:
            server.sendall(self.head[:-2] + b"Connection: close\r\n\r\n" + self.body)
            return b"".join(iter(lambda: server.recv(PIECE), b""))


Behaviour = Callable[[Exchange], None]


def passes(exchange: Exchange) -> None:
    exchange.client.sendall(exchange.ask())


def answers(status: int, code: str) -> Behaviour:
    """The server is not asked; this is the answer."""

    def behave(exchange: Exchange) -> None:
        exchange.read_body()
        body = f"<Error><Code>{code}</Code><Message>as the test says</Message></Error>".encode()
        head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        exchange.client.sendall(head.encode() + body)

    return behave


def cuts_request(after: int) -> Behaviour:
    """The connection ends when so many bytes of the request's body have come; the server sees nothing."""
    return lambda exchange: exchange.read_body(after)


def cuts_answer(after: int) -> Behaviour:
    """The connection ends after so many bytes of the answer's body."""

    def behave(exchange: Exchange) -> None:
        head, _, body = exchange.ask().partition(b"\r\n\r\n")
        assert len(body) > after, "there is something to cut"
        exchange.client.sendall(head + b"\r\n\r\n" + body[:after])

    return behave


def loses_answer(exchange: Exchange) -> None:
    """The server does what it is asked; the connection ends before its answer."""
    exchange.ask()


def lists_nothing(exchange: Exchange) -> None:
    """A listing without an object, whatever is there."""
    empty = b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(empty)
    exchange.client.sendall(head + empty)


def hangs(exchange: Exchange) -> None:
    exchange.read_body()
    exchange.over.wait()


@dataclass
class Gate:
    """A request that comes to `holds` waits there, with who sent it, until the gate is opened."""

    reached: threading.Event = field(default_factory=threading.Event)
    opened: threading.Event = field(default_factory=threading.Event)

    def holds(self, exchange: Exchange) -> None:
        exchange.read_body()
        self.reached.set()
        while not (exchange.over.is_set() or self.opened.wait(0.02)):
            pass
        passes(exchange)


def sips(piece: int, pause: float) -> Behaviour:
    """The request is taken in pieces of so many bytes, with a pause (seconds) after each."""

    def behave(exchange: Exchange) -> None:
        before = -1
        while len(exchange.body) != before:
            before = len(exchange.body)
            exchange.read_body(before + piece)
            exchange.over.wait(pause)
        passes(exchange)

    return behave


def trickles(pieces: int, pause: float) -> Behaviour:
    """The answer comes in so many pieces, with a pause (seconds) before each."""

    def behave(exchange: Exchange) -> None:
        answer = exchange.ask()
        size = len(answer) // pieces + 1
        for at in range(0, len(answer), size):
            exchange.over.wait(pause)
            exchange.client.sendall(answer[at : at + size])

    return behave


@dataclass
class FaultProxy:
    """`fail` says what the next matching requests meet; all others pass. `seen` lists every request."""

    upstream: tuple[str, int]
    usual: Behaviour = passes
    endpoint: str = ""
    seen: list[str] = field(default_factory=list)
    _plan: list[tuple[str, Behaviour]] = field(default_factory=list)
    _guard: threading.Lock = field(default_factory=threading.Lock)
    _over: threading.Event = field(default_factory=threading.Event)

    def fail(self, pattern: str, behaviour: Behaviour, times: int = 1) -> None:
        """Let the next requests whose line matches meet a fault, after those planned before."""
        with self._guard:
            self._plan += [(pattern, behaviour)] * times

    def requests(self, pattern: str) -> int:
        """How many requests matched."""
        return sum(1 for line in self.seen if re.search(pattern, line))

    @property
    def spent(self) -> bool:
        """Whether every planned fault was met."""
        return not self._plan

    def serve(self, client: socket.socket) -> None:
        data = b""
        while b"\r\n\r\n" not in data:
            more = client.recv(PIECE)
            if not more:
                return
            data += more
        head, _, body = data.partition(b"\r\n\r\n")
        exchange = Exchange(client, self.upstream, head + b"\r\n\r\n", body, self._over)
        with contextlib.suppress(ConnectionError):
            self._behaviour(exchange.line)(exchange)

    def end(self) -> None:
        self._over.set()

    def _behaviour(self, line: str) -> Behaviour:
        with self._guard:
            self.seen.append(line)
            for number, (pattern, behaviour) in enumerate(self._plan):
                if re.search(pattern, line):
                    del self._plan[number]
                    return behaviour
        return self.usual


@contextlib.contextmanager
def fault_proxy(endpoint: str, usual: Behaviour = passes) -> Iterator[FaultProxy]:
    """Run a proxy on loopback in front of an http endpoint; `usual` is what becomes of other requests."""
    parts = urlsplit(endpoint)
    proxy = FaultProxy((str(parts.hostname), int(parts.port or 80)), usual)

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            proxy.serve(self.request)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        request_queue_size = 64

    with Server(("127.0.0.1", 0), Handler) as server:
        proxy.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield proxy
        finally:
            proxy.end()
            server.shutdown()
            thread.join()
