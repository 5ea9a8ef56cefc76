"""Host names: which are this machine's own, and which a request may be addressed to.

A page of a stranger whose name suddenly resolves to 127.0.0.1 (DNS rebinding) is of one origin with us in its browser's
eyes; only the Host header still has the stranger's name.
"""

import ipaddress
import re
from collections.abc import Iterable
from functools import lru_cache

from serving.protocol.messages import RequestError

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:/@\[\]]+?)\.?(?::\d{1,5})?")
_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")


def is_loopback(host: str) -> bool:
    """Whether an address to listen at can be reached from this machine only; of names, that is sure of localhost."""
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return host.lower() == "localhost"
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


@lru_cache(maxsize=256)
def name_in(header: str) -> str:
    """The name in a Host header, in lower case, without its port; "" if there is none."""
    found = _HOST.fullmatch(header)
    return found[1].lower() if found is not None else ""


def plain_name(text: str) -> str:
    """A host as it is named in options: without port, IPv6 with or without brackets. Raises ValueError."""
    bracketed = f"[{text}]" if text.count(":") > 1 and not text.startswith("[") else text
    name = name_in(bracketed)
    if not name or name != bracketed.lower().rstrip("."):
        raise ValueError(f"is {text!r}; it must be a host's name alone, such as images.example.org")
    return name


class Hosts:
    """The names under which we may be asked: those of loopback, the one we listen at, and those that are allowed."""

    def __init__(self, bound: str, allowed: Iterable[str] = ()) -> None:
        self._names = {*_LOOPBACK_NAMES, *map(plain_name, (bound, *allowed))}

    def check(self, header: bytes | None) -> None:
        """Raises `RequestError`: 400 without a Host header, 421 if it has another name."""
        if header is None:
            raise RequestError("the request has no Host header")
        text = header.decode("latin-1")
        if name_in(text) not in self._names:
            raise RequestError(f"misdirected: no server of the name {text!r} is here; --allow-host would allow it", 421)
