"""The config object: format version, repository id, and the polynomial that restic's chunker needs."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass

from coeval.repository.documents import MALFORMED, parse_document
from coeval.repository.polynomial import is_irreducible, random_irreducible

VERSION = 2


@dataclass(frozen=True)
class Config:
    """What is fixed when a repository is made."""

    version: int
    id: str
    chunker_polynomial: int

    @classmethod
    def new(cls) -> Config:
        """Make the config of a new repository."""
        return cls(VERSION, secrets.token_hex(32), random_irreducible())

    @classmethod
    def from_json(cls, text: bytes) -> Config:
        """Parse a config. Raises ValueError with what is wrong."""
        try:
            doc = parse_document(text)
            config = cls(int(doc["version"]), str(doc["id"]), int(doc["chunker_polynomial"], 16))
        except MALFORMED as error:
            raise ValueError(f"it lacks or misuses {error}") from error
        if config.version != VERSION:
            raise ValueError(
                f"its format version is {config.version}, not {VERSION}: run `restic migrate upgrade_repo_v2`"
            )
        if config.chunker_polynomial >= 1 << 64:
            raise ValueError("its chunker polynomial is too large")
        if not is_irreducible(config.chunker_polynomial):
            raise ValueError("its chunker polynomial is reducible")
        return config

    def to_json(self) -> bytes:
        """Write the config as it stands, encrypted, in the store."""
        polynomial = f"{self.chunker_polynomial:x}"
        doc = {"version": self.version, "id": self.id, "chunker_polynomial": polynomial}
        return json.dumps(doc, separators=(",", ":")).encode()
