"""API keys as values: `simclr_<id>_<secret>`, of which we keep only the SHA-256.

A fast hash is enough here: the secret is 256 random bits, not a password that someone could guess.
"""

import hashlib
import hmac
import secrets
from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta, Struct

from serving.gateway.access.callers import Caller
from serving.protocol.operations import Scope

_PREFIX = "simclr_"
_ID_ENDS = len(_PREFIX) + 8
_LENGTH = _ID_ENDS + 1 + 43

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}\Z"
MAX_RATE = 1_000_000
_Name = Annotated[str, Meta(pattern=NAME_PATTERN)]


class Grant(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A key's name, and what it allows; no collections are all of them, `rate` is in requests a second."""

    name: _Name
    scope: Scope
    collections: tuple[_Name, ...] = ()
    rate: Annotated[float, Meta(gt=0, le=MAX_RATE)] | None = None


class Key(Grant, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A key as it is kept: what it allows, and the hash by which it is known again."""

    id: Annotated[str, Meta(pattern=r"^[0-9a-f]{8}\Z")]
    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
    created: datetime

    def fits(self, text: bytes) -> bool:
        """Whether this is the key's text; takes the same time wherever the two differ."""
        return hmac.compare_digest(hashlib.sha256(text).digest(), bytes.fromhex(self.sha256))

    def caller(self) -> Caller:
        """Who asks with this key."""
        return Caller(self.name, self.scope, frozenset(self.collections), self.rate)


class KeyList(Struct, frozen=True, forbid_unknown_fields=True):
    """Everything in a key file. Raises ValueError if two keys have one name or one id."""

    schema: Literal["simclr-keys/1"] = "simclr-keys/1"
    keys: tuple[Key, ...] = ()

    def __post_init__(self) -> None:
        for what in ("name", "id"):
            values = [getattr(key, what) for key in self.keys]
            if len(set(values)) < len(values):
                raise ValueError(f"two keys have the same {what}")


def new_text() -> str:
    """A new key's text; it can't be had again from what is kept."""
    return f"{_PREFIX}{secrets.token_hex(4)}_{secrets.token_urlsafe(32)}"


def key_of(text: str, grant: Grant, created: datetime) -> Key:
    """What is kept of a key's text."""
    digest = hashlib.sha256(text.encode()).hexdigest()
    return Key(
        **{name: getattr(grant, name) for name in Grant.__struct_fields__},
        id=text[len(_PREFIX) : _ID_ENDS],
        sha256=digest,
        created=created,
    )


def id_in(text: bytes) -> str | None:
    """The id in a key's text; None if the text can't be a key."""
    if len(text) != _LENGTH or not text.startswith(_PREFIX.encode()) or not text.isascii():
        return None
    return text[len(_PREFIX) : _ID_ENDS].decode()
