"""What a failed request of obstore means. The library gives classes that say little and a text that says all.

The text is parsed here and nowhere else. What a store answers may echo the request, so only its code is
passed on, and its own sentence where that cannot be about credentials: no refusal, and no word as long as a
token.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, auto


class Trouble(Enum):
    """What to do about a failure is decided by this."""

    MISSING = auto()
    """No such object."""
    EXISTS = auto()
    """The condition of a conditional write does not hold."""
    BEYOND_END = auto()
    """The object ends before the range begins."""
    BUCKET = auto()
    """No such bucket."""
    REFUSED = auto()
    """The credentials are missing, wrong or not enough."""
    FULL = auto()
    """No space or quota left."""
    CERTIFICATE = auto()
    """The server's certificate is not trusted."""
    PASSING = auto()
    """May well succeed when tried again."""
    OTHER = auto()
    """Will not get better by itself."""


@dataclass(frozen=True)
class Failure:
    """A failed request: the kind of trouble, in words, whether a server answered, or was out of time."""

    trouble: Trouble
    words: str
    answered: bool
    code: str = ""
    late: bool = False


METADATA_ADDRESS = "169.254.169.254"
"""Where the library looks for credentials when the environment has none."""

_STATUS = re.compile(r"non-2xx status code: (\d{3})")
_CODE = re.compile(r"<Code>([\w.-]{1,64})</Code>")
_SENTENCE = re.compile(r"<Message>([^<]{1,200})")
# Azure removes by a batch of one, in whose answer the status is a line of its own.
_BATCH = re.compile(r"Bulk delete request failed for key .*?: ([^\n]*) \(code: (\d{3})\)")
# The library finds that out itself: Azure answers what there is of a range.
_BEYOND_END = re.compile(r"Wanted range starting at \d+, but object was only \d+ bytes long")
_TOKEN = re.compile(r"\S{41}")
_KIND = re.compile(r"HttpError \{\s*kind: (\w+)")

_MISSING = {"NoSuchKey", "BlobNotFound"}
_BUCKET = {"NoSuchBucket", "ContainerNotFound"}
_EXISTS = {"BlobAlreadyExists"}
# A store may refuse credentials with other codes than 401 and 403.
_REFUSED = {
    "AccessDenied",
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidToken",
    "SignatureDoesNotMatch",
    "XAdminUserNotFound",
}
_FULL = {"InsufficientCapacity", "InsufficientStorage", "QuotaExceeded", "XMinioStorageFull"}
# Client errors that say no more than that the body did not arrive as it was sent.
_PASSING = {"BadDigest", "IncompleteBody", "RequestTimeout", "XAmzContentSHA256Mismatch"}

_UNANSWERED = {
    "Connect": "nobody answers there",
    "Timeout": "no answer in time",
    "Interrupted": "the connection was cut",
    "Request": "the request could not be sent",
}


def read_failure(text: str) -> Failure:
    """Understand the text of an error of obstore."""
    head, _, source = text.partition("\n\nDebug source:")
    if METADATA_ADDRESS in head:
        return Failure(
            Trouble.REFUSED,
            "the environment has no credentials, and this machine has no metadata service to give some",
            answered=False,
        )
    status = _STATUS.search(head)
    if status:
        code = _CODE.search(head)
        return _answered(int(status[1]), code[1] if code else "", head)
    if batch := _BATCH.search(head):
        missing = "ContainerNotFound" if "container" in batch[1] else "BlobNotFound"
        return _answered(int(batch[2]), missing if batch[2] == "404" else "", "")
    if _BEYOND_END.search(head):
        return Failure(Trouble.BEYOND_END, "the range begins after its end", answered=True)
    return _unanswered(head, source)


def _answered(status: int, code: str, head: str) -> Failure:
    words = f"it answers {status} {code}".rstrip()
    trouble = _trouble(status, code)
    sentence = _SENTENCE.search(head)
    if trouble in (Trouble.OTHER, Trouble.PASSING) and sentence and not _TOKEN.search(sentence[1]):
        words += f" ({sentence[1].strip()})"
    if trouble is Trouble.OTHER and status == 404:
        words += " and does not say what is missing, as an object store would"
    return Failure(trouble, words, answered=True, code=code)


def _trouble(status: int, code: str) -> Trouble:
    for trouble, codes in (
        (Trouble.MISSING, _MISSING),
        (Trouble.BUCKET, _BUCKET),
        (Trouble.EXISTS, _EXISTS),
        (Trouble.REFUSED, _REFUSED),
        (Trouble.FULL, _FULL),
        (Trouble.PASSING, _PASSING),
    ):
        if code in codes:
            return trouble
    by_status = {
        401: Trouble.REFUSED,
        403: Trouble.REFUSED,
        408: Trouble.PASSING,
        409: Trouble.PASSING,  # another conditional write of this object is under way
        412: Trouble.EXISTS,
        416: Trouble.BEYOND_END,
        429: Trouble.PASSING,
        501: Trouble.OTHER,
        507: Trouble.FULL,
    }
    return by_status.get(status, Trouble.PASSING if status >= 500 else Trouble.OTHER)


def _unanswered(head: str, source: str) -> Failure:
    if "InvalidCertificate" in source:
        words = "its certificate is not signed by a CA that we trust"
        if "UnknownIssuer" not in source and "CaUsedAsEndEntity" not in source:
            words = "its certificate is not valid for this host and time"
        return Failure(Trouble.CERTIFICATE, words, answered=True)
    if "InvalidContentType" in source:
        return Failure(Trouble.OTHER, "it does not speak TLS; is the endpoint http://?", answered=True)
    if "dns error" in source:
        return Failure(Trouble.PASSING, "there is no such host", answered=False)
    if "BareRedirect" in source:
        return Failure(Trouble.OTHER, "the bucket is in another region", answered=True)
    kind = _KIND.search(source)
    if kind and kind[1] in _UNANSWERED:
        cut, late = kind[1] == "Interrupted", kind[1] == "Timeout"
        return Failure(Trouble.PASSING, _UNANSWERED[kind[1]], answered=cut, late=late)
    return Failure(Trouble.OTHER, first_words(head), answered=True)


def first_words(text: str) -> str:
    """Give the part of a message that names the problem, without values that it was met with."""
    parts = text.split("\n", 1)[0].split(": ")
    return parts[1] if parts[0].startswith("Generic ") and len(parts) > 1 else parts[0]
