"""Origins: whether a web page of another site is behind a request, which a browser says by Origin and Sec-Fetch-Site.

Programs send neither. A browser lets any page send simple requests anywhere, forms and files included, and only keeps
the reply from it; so what such a page asks has to be refused, not only its answer withheld.
"""

import re
from collections.abc import Iterable, Mapping

from serving.protocol.messages import RequestError

ANY = "*"
_ORIGIN = re.compile(r"https?://(\[[0-9a-f:.]+\]|[^\s:/@\[\]*]+)(:\d{1,5})?")
_ELSEWHERE = (b"cross-site", b"same-site")


def origin(text: str) -> str:
    """An origin as it is allowed by an option: `https://images.example.org`, or `*`. Raises ValueError."""
    plain = text.lower()
    if plain != ANY and _ORIGIN.fullmatch(plain) is None:
        raise ValueError(f"is {text!r}; it must be an origin, such as https://images.example.org, without a path, or *")
    return plain


class Origins:
    """The origins whose pages may ask without a key: our own, and those that are allowed.

    `secure`: we are asked by https. `behind_proxy`: a proxy is, and says in X-Forwarded-Proto and X-Forwarded-Host how
    it was asked itself.
    """

    def __init__(self, allowed: Iterable[str] = (), *, secure: bool = False, behind_proxy: bool = False) -> None:
        self._allowed = frozenset(origin(one).encode() for one in allowed)
        self._any = ANY.encode() in self._allowed
        self._scheme = b"https" if secure else b"http"
        self._behind_proxy = behind_proxy

    def check(self, found: Mapping[bytes, bytes], *, navigation: bool) -> None:
        """Raises `RequestError` 403 if another site's page asks.

        `navigation`: a link there may lead here, as it is a GET of what anyone may see.
        """
        given = found.get(b"origin")
        if given is None:
            if found.get(b"sec-fetch-site") in _ELSEWHERE and not (navigation and _navigates(found)):
                raise _refusal("a page of another site")
            return
        if not (self._any or given.lower() in self._allowed or given.lower() in self._own(found)):
            raise _refusal(f"a page of {given.decode('latin-1')!r}")

    def _own(self, found: Mapping[bytes, bytes]) -> list[bytes]:
        """The origins that our own pages have, by the host that was asked."""
        host, schemes = found.get(b"host", b""), [self._scheme]
        if self._behind_proxy:
            host = _first(found.get(b"x-forwarded-host", host))
            said = found.get(b"x-forwarded-proto")
            schemes = [b"http", b"https"] if said is None else [_first(said)]
        return [scheme.lower() + b"://" + host.lower() for scheme in schemes]


def _first(value: bytes) -> bytes:
    """What the outermost of several proxies said."""
    return value.partition(b",")[0].strip()


def _navigates(found: Mapping[bytes, bytes]) -> bool:
    """Whether a whole page is to be shown, not a frame in one of the other site's."""
    return found.get(b"sec-fetch-mode") == b"navigate" and found.get(b"sec-fetch-dest", b"document") == b"document"


def _refusal(who: str) -> RequestError:
    return RequestError(f"{who} may not ask without a key; --allow-origin would allow it", 403)
