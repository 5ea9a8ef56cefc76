"""What a request's headers say of who asks: each at most once, and at most one key."""

from collections.abc import Iterable

from serving.protocol.messages import RequestError

_READ = frozenset(
    {
        *(b"host", b"authorization", b"x-api-key", b"origin", b"sec-fetch-site", b"sec-fetch-mode"),
        *(b"sec-fetch-dest", b"x-forwarded-host", b"x-forwarded-proto"),
    }
)
_BEARER = b"bearer "


def heeded(headers: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """The headers that matter here, of ASGI's pairs with names in lower case.

    Raises `RequestError` 400 if one is given twice with different values: another program on the way may have read the
    other.
    """
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in _READ and found.setdefault(name, value) != value:
            raise RequestError(f"the header {name.decode()} is given twice, and differs")
    return found


def key_in(found: dict[bytes, bytes]) -> bytes | None:
    """The key that is given, as a bearer token or by itself; raises `RequestError` 400 if there are two."""
    authorization, key = found.get(b"authorization"), found.get(b"x-api-key")
    if authorization is None or authorization[: len(_BEARER)].lower() != _BEARER:
        return key
    bearer = authorization[len(_BEARER) :].strip()
    if key is not None and key != bearer:
        raise RequestError("Authorization and x-api-key have different keys; send one of them")
    return bearer
