"""Google's XML API over moto. As our client speaks it, it differs from S3's in two headers and in spelling.

No emulator from a package registry has that API's listing. What this cannot show: Google's tokens, and its
answers where they differ from S3's.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from tests.tools.fault_proxy import Exchange, FaultProxy, fault_proxy, passes
from tests.tools.servers import ACCESS_KEY, S3Server

_ABSENT = b"x-goog-if-generation-match: 0"
"""Google's way to say that there must be no such object yet."""
_TOKEN = re.compile(rb"authorization: Bearer [^\r]+\r\n", re.IGNORECASE)
_SIGNED = (
    b"authorization: AWS4-HMAC-SHA256 Credential=%s/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, "
    b"Signature=0\r\n" % ACCESS_KEY.encode()
)
"""moto wants somebody to have signed, and does not look at what."""


@dataclass(frozen=True)
class GcsFront:
    """What answers to Google's API. `proxy` sees every request."""

    proxy: FaultProxy
    behind: S3Server

    def bucket(self) -> str:
        """Make a bucket; give its name."""
        return self.behind.bucket()

    def environment(self) -> dict[str, str]:
        """What a client needs, in the usual variables."""
        return {"GOOGLE_BASE_URL": self.proxy.endpoint, "GOOGLE_BEARER_TOKEN": "a token of the tests"}


@contextlib.contextmanager
def gcs_front(behind: S3Server) -> Iterator[GcsFront]:
    """Run it on loopback."""
    with fault_proxy(behind.endpoint, _translates) as proxy:
        yield GcsFront(proxy, behind)


def _translates(exchange: Exchange) -> None:
    assert b"if-none-match" not in exchange.head.lower(), "this is S3's word"
    head, tokens = _TOKEN.subn(_SIGNED, exchange.head)
    assert tokens == 1, "every request names who asks"
    line, _, rest = head.replace(_ABSENT, b"if-none-match: *").partition(b"\r\n")
    path, question, query = line.partition(b"?")
    exchange.head = unquote_to_bytes(path) + question + query + b"\r\n" + rest  # moto takes %2D for itself
    passes(exchange)
