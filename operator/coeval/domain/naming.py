"""Names of what we create: the same for the same purpose, so that a restart finds what it made before."""

import hashlib
import re

MANAGED_BY = ("app.kubernetes.io/managed-by", "coeval")
"""The label of everything that we make."""

_SLUG = re.compile(r"[^a-z0-9]+")
_REASON = re.compile(r"[A-Za-z][A-Za-z0-9]{0,99}")


def child(uid: str, step: str, volume: str | None = None, attempt: int | None = None) -> str:
    """A DNS label (at most 63 characters) that no other backup, step, volume or attempt has.

    Readable as far as there is room; the hashes make it unique, for slugs of different volumes may be equal.
    """
    parts = ["coeval", _hash(uid, 10), step if attempt is None else f"{step}-{attempt}"]
    if volume is not None:
        slug = _SLUG.sub("-", volume.lower()).strip("-")[:16].strip("-")
        parts += [slug, _hash(volume, 8)] if slug else [_hash(volume, 8)]
    name = "-".join(parts)
    if len(name) > 63:
        raise ValueError(f"the step {step} is too long for a name: {name}")
    return name


def reason(said: str | None, otherwise: str) -> str:
    """A condition's reason: what was said if it is a CamelCase word. Webhooks put whole sentences there."""
    return said if said and _REASON.fullmatch(said) else otherwise


def _hash(text: str, length: int) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:length]
