"""Key files: the master key, encrypted under a key that scrypt derives from a password."""

from __future__ import annotations

import base64
import getpass
import json
import os
import socket
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from coeval.repository.config import Config
from coeval.repository.crypto import Key, Unauthentic, hash_id
from coeval.repository.documents import MALFORMED, parse_document
from coeval.repository.errors import ObjectMissing, RepositoryDamaged, RepositoryNotFound, WrongPassword
from coeval.repository.store import CONFIG_NAME, Kind, Store

SALT_SIZE = 64


@dataclass(frozen=True)
class ScryptCost:
    """scrypt's parameters: n is a power of two; memory is 128 · n · r bytes."""

    n: int = 1 << 15
    r: int = 8
    p: int = 1

    def excessive(self) -> bool:
        """Tell whether it asks for more than 1 GiB, or some 256 times the work of the default."""
        return self.n * self.r > 1 << 23 or self.n * self.r * self.p > 1 << 26


def add_key(store: Store, master: Key, password: str, cost: ScryptCost) -> str:
    """Write a key file that opens `master` with `password`; give its name."""
    salt = os.urandom(SALT_SIZE)
    user_key = Key.derive(password.encode(), salt=salt, n=cost.n, r=cost.r, p=cost.p)
    doc = {
        "created": datetime.now(UTC).isoformat(),
        "username": user_name(),
        "hostname": socket.gethostname(),
        "kdf": "scrypt",
        "N": cost.n,
        "r": cost.r,
        "p": cost.p,
        "salt": base64.b64encode(salt).decode(),
        "data": base64.b64encode(user_key.seal(master.to_json())).decode(),
    }
    text = json.dumps(doc, separators=(",", ":")).encode()
    name = hash_id(text).hex()
    store.save(Kind.KEY, name, [text])
    return name


def new_key(store: Store, password: str, cost: ScryptCost) -> tuple[str, Key]:
    """Make a master key and write its key file; give its name, too."""
    master = Key.random()
    return add_key(store, master, password, cost), master


def left_key(store: Store, password: str) -> tuple[str, Key] | None:
    """Give a key file that the password opens, left by a maker who did not get as far as the config."""
    for name, _ in store.entries(Kind.KEY):
        with suppress(Unauthentic, ObjectMissing, RepositoryDamaged):
            return name, _open_key(store, name, password)
    return None


def user_name() -> str:
    """Give the user's name, or its number: a mover's uid is in no password file."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def find_key(store: Store, password: str) -> tuple[Key, Config]:
    """Find the key file that the password opens, and the config that its master key opens.

    Two movers may make one repository at once: the one whose config was second removes its key file, but may
    die before it does. So a key that does not open the config is passed over, and removed once another does.
    Raises RepositoryNotFound, WrongPassword, RepositoryDamaged.
    """
    try:
        sealed = store.load(Kind.CONFIG, CONFIG_NAME)
    except ObjectMissing as error:
        raise RepositoryNotFound(
            f"there is no repository here: {error}; make one with `coeval repo init`"
        ) from None
    leftovers = []
    damaged: RepositoryDamaged | None = None
    for name, _ in store.entries(Kind.KEY):
        try:
            master = _open_key(store, name, password)
        except (Unauthentic, ObjectMissing):
            continue
        except RepositoryDamaged as error:
            damaged = error
            continue
        try:
            config = Config.from_json(master.open(sealed))
        except Unauthentic:
            leftovers.append(name)
            continue
        except ValueError as error:
            raise RepositoryDamaged(f"config: {error}") from error
        for leftover in leftovers:
            store.remove(Kind.KEY, leftover)
        return master, config
    if damaged:
        raise damaged
    if leftovers:
        raise RepositoryDamaged(
            f"config is damaged: the key {leftovers[0]} opens with the password but not the config"
        )
    raise WrongPassword("the password opens no key of the repository; check --password-file")


def _open_key(store: Store, name: str, password: str) -> Key:
    text = store.load(Kind.KEY, name)
    if hash_id(text).hex() != name:
        raise RepositoryDamaged(f"keys/{name} is damaged: its content does not fit its name")
    try:
        doc = parse_document(text)
        if doc["kdf"] != "scrypt":
            raise RepositoryDamaged(f"keys/{name}: unknown key derivation {doc['kdf']!r}")
        cost = ScryptCost(doc["N"], doc["r"], doc["p"])
        if cost.excessive():
            raise RepositoryDamaged(f"keys/{name}: its scrypt parameters {cost} would exhaust this machine")
        salt, data = base64.b64decode(doc["salt"]), base64.b64decode(doc["data"])
        user_key = Key.derive(password.encode(), salt=salt, n=cost.n, r=cost.r, p=cost.p)
        return Key.from_json(user_key.open(data))
    except MALFORMED as error:
        raise RepositoryDamaged(f"keys/{name}: {error}") from error
