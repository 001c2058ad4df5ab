"""restic's authenticated encryption: AES-256-CTR, then Poly1305-AES over the ciphertext.

A sealed message is `nonce (16) | ciphertext | tag (16)`. Format: restic's doc/design.rst.
"""

from __future__ import annotations

import base64
import hashlib
import os
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from cryptography.hazmat.primitives.poly1305 import Poly1305

from coeval.repository.documents import MALFORMED, parse_document

Bytes = bytes | bytearray | memoryview

NONCE_SIZE = 16
TAG_SIZE = 16
OVERHEAD = NONCE_SIZE + TAG_SIZE
"""Bytes by which sealing makes a message longer."""


class Unauthentic(Exception):
    """The tag does not fit: another key, or the bytes were changed. Callers say which object it was."""


def hash_id(data: Bytes) -> bytes:
    """SHA-256, the id of every blob and file."""
    return hashlib.sha256(data).digest()


@dataclass(frozen=True, repr=False)
class Key:
    """An encryption key (32 bytes) and the two halves of a MAC key (16 bytes each). Never printed."""

    encrypt: bytes
    mac_k: bytes
    mac_r: bytes

    @classmethod
    def random(cls) -> Key:
        """Make a new key from the system's random source."""
        return cls(os.urandom(32), os.urandom(16), os.urandom(16))

    @classmethod
    def derive(cls, password: bytes, *, salt: bytes, n: int, r: int, p: int) -> Key:
        """Derive the key of a key file from a password. Raises ValueError on impossible parameters."""
        raw = Scrypt(salt=salt, length=64, n=n, r=r, p=p).derive(password)
        return cls(raw[:32], raw[32:48], raw[48:])

    @classmethod
    def from_json(cls, text: bytes) -> Key:
        """Parse the master key inside a key file. Raises ValueError."""
        try:
            doc = parse_document(text)
            parts = [doc["encrypt"], doc["mac"]["k"], doc["mac"]["r"]]
            encrypt, mac_k, mac_r = (base64.b64decode(part, validate=True) for part in parts)
        except MALFORMED as error:
            raise ValueError("a master key has the fields mac.k, mac.r and encrypt in base64") from error
        if (len(encrypt), len(mac_k), len(mac_r)) != (32, 16, 16):
            raise ValueError("the parts of a master key are 32, 16 and 16 bytes long")
        return cls(encrypt, mac_k, mac_r)

    def to_json(self) -> bytes:
        """Write the master key as it stands, encrypted, in a key file."""
        k, r, e = (base64.b64encode(part).decode() for part in (self.mac_k, self.mac_r, self.encrypt))
        return f'{{"mac":{{"k":"{k}","r":"{r}"}},"encrypt":"{e}"}}'.encode()

    def seal(self, plaintext: Bytes) -> bytearray:
        """Encrypt and authenticate a message under a fresh random nonce."""
        nonce = os.urandom(NONCE_SIZE)
        size = memoryview(plaintext).nbytes
        out = bytearray(NONCE_SIZE + size + TAG_SIZE)
        out[:NONCE_SIZE] = nonce
        with memoryview(out) as view:
            # The tag's place doubles as the slack of one block that update_into asks for.
            self._cipher(nonce).encryptor().update_into(plaintext, view[NONCE_SIZE:])
            end = NONCE_SIZE + size
            view[end:] = self._mac(nonce, view[NONCE_SIZE:end]).finalize()
        return out

    def open(self, sealed: Bytes) -> bytes:
        """Check the tag, then decrypt. Raises Unauthentic; nothing is decrypted before the tag fits."""
        view = memoryview(sealed)
        if view.nbytes < OVERHEAD:
            raise Unauthentic
        nonce, body, tag = bytes(view[:NONCE_SIZE]), view[NONCE_SIZE:-TAG_SIZE], bytes(view[-TAG_SIZE:])
        try:
            self._mac(nonce, body).verify(tag)
        except InvalidSignature:
            raise Unauthentic from None
        return self._cipher(nonce).decryptor().update(body)

    def _cipher(self, nonce: bytes) -> Cipher[modes.CTR]:
        return Cipher(algorithms.AES(self.encrypt), modes.CTR(nonce))

    def _mac(self, nonce: bytes, message: Bytes) -> Poly1305:
        # ECB of one block is how Poly1305-AES turns the nonce into the second half of its one-time key.
        pad = Cipher(algorithms.AES(self.mac_k), modes.ECB()).encryptor().update(nonce)  # noqa: S305
        mac = Poly1305(self.mac_r + pad)
        mac.update(message)
        return mac
