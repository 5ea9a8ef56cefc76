"""The one object that the gateway asks, before it reads a request's body: who is this, and may they?"""

import time
from collections.abc import Callable, Iterable
from pathlib import Path

from serving.gateway.access.binding import check_binding
from serving.gateway.access.callers import ANYONE, NOBODY, Caller
from serving.gateway.access.certificate import Certificate
from serving.gateway.access.credentials import heeded, key_in
from serving.gateway.access.hosts import Hosts, is_loopback
from serving.gateway.access.key_ring import KeyRing
from serving.gateway.access.options import AccessOptions
from serving.gateway.access.origins import ANY, Origins
from serving.gateway.access.rates import Rates
from serving.protocol.messages import RequestError
from serving.protocol.operations import Scope


class Gate:
    """Admits requests or says why not, by the options and the keys that are valid just now.

    Raises ValueError if the gateway must not listen like that, and if the key file is broken. `clock` is monotonic, in
    seconds.
    """

    def __init__(self, options: AccessOptions, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._ring = KeyRing(Path(options.keys), required=not is_loopback(options.host))
        check_binding(options.host, keys=len(self._ring), tls=options.tls, behind_proxy=options.behind_proxy)
        if ANY in options.allowed_origins and not self._ring.required:
            raise ValueError(
                "--allow-origin '*' would let every web site ask and change everything; make keys required first with "
                "`simclr keys add NAME --scope read`, or name the origins"
            )
        self._hosts = Hosts(options.host, options.allowed_hosts)
        self._names_hosts = bool(options.allowed_hosts)
        self._local = is_loopback(options.host) and not options.behind_proxy
        self._origins = Origins(options.allowed_origins, secure=options.tls, behind_proxy=options.behind_proxy)
        self._behind_proxy = options.behind_proxy
        self._rates = Rates()
        self._clock = clock

    @property
    def needs_keys(self) -> bool:
        """Whether every request needs a key just now, but for what is public."""
        return self._ring.required

    def admit(
        self,
        headers: Iterable[tuple[bytes, bytes]],
        *,
        method: str,
        scope: Scope | None,
        collection: str | None = None,
    ) -> Caller:
        """Who asks, if they may.

        `headers` are ASGI's, with names in lower case; `scope` is what the route needs, None where it is public;
        `collection` is the name of the one that is asked for, None if none is. Raises `RequestError`: 400 for headers
        that contradict one another, 401 without a valid key, 403 if the key does not allow it or another site's page
        asks without a key, 421 for another server's name, 429 if the key asks too often.
        """
        now = self._clock()
        self._ring.refresh(now)
        found = heeded(headers)
        if self._needs_our_name(public=scope is None):
            self._check_hosts(found)
        if scope is None:
            self._origins.check(found, navigation=method == "GET")
            return NOBODY
        caller = self._caller(found)
        if caller is None:
            self._origins.check(found, navigation=False)
            return ANYONE
        if caller.rate is not None:
            self._rates.take(caller.name, caller.rate, now)
        if refusal := caller.refusal(scope, collection):
            raise refusal
        return caller

    def _needs_our_name(self, *, public: bool) -> bool:
        """Whether only our own names are answered: a browser sends no key by itself, but what is public needs none."""
        return self._names_hosts or not self._ring.required or (public and self._local)

    def _caller(self, found: dict[bytes, bytes]) -> Caller | None:
        """Whose key it is; None without a valid one, where none is needed."""
        text = key_in(found)
        caller = self._ring.caller(text) if text else None
        if caller is None and self._ring.required:
            raise RequestError(_NOT_VALID if text else _NO_KEY, 401)
        return caller

    def _check_hosts(self, found: dict[bytes, bytes]) -> None:
        self._hosts.check(found.get(b"host"))
        if self._behind_proxy and b"x-forwarded-host" in found:
            for name in found[b"x-forwarded-host"].split(b","):
                self._hosts.check(name.strip())


def check_access(options: AccessOptions) -> None:
    """Raises ValueError, before anything is started, if a gateway with these options would not start."""
    Gate(options)
    if options.tls:
        Certificate(options.tls_cert, options.tls_key)


_NO_KEY = "a key is needed: send it as `Authorization: Bearer KEY` or as `x-api-key: KEY`"
_NOT_VALID = "the key is not valid: unknown or revoked"
