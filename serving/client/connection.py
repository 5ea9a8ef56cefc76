"""What both clients have in common: address, key, patience, and what becomes of a reply. Nothing here waits or sends.

`Connection.exchange` carries a client's steps out as a generator of what is to be done: a request to send, whose
reply or failure it is to be given, or a number of seconds to wait.
"""

import os
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any, TypeVar

import httpx

from serving.client.calls import Call, Result, Steps, segment
from serving.client.errors import ServerError
from serving.client.patience import Patience, retry_after
from serving.protocol.agreed import API_KEY

Outcome = httpx.Response | httpx.TransportError | None
Doings = Generator[Call | float, Outcome, Result]
Http = TypeVar("Http", httpx.Client, httpx.AsyncClient)

_BUSY = (429, 503)
_WORKER_DIED = "Worker died"  # TorchServe's own words, under status 500 or 507
_LOST = (httpx.NetworkError, httpx.RemoteProtocolError)  # and no timeout: that was waiting enough


@dataclass
class Connection:
    """A server, the collection that is asked, the key, and for how many seconds of pauses a busy server is asked."""

    url: str
    api_key: str | None
    collection: str
    timeout: float
    patience: float
    _met: bool = field(default=False, init=False)  # whether the server has ever answered

    def open(self, kind: Callable[..., Http]) -> Http:
        """An `httpx` client of either kind. Raises `ServerError` for what is no key, or a proxy that can't be used."""
        key = (os.environ.get(API_KEY, "") if self.api_key is None else self.api_key).strip()
        host = httpx.URL(self.url).host
        here = host in ("127.0.0.1", "localhost", "::1")
        headers = _of_key(key, self.url)
        try:
            return kind(
                base_url=self.url,
                headers=headers,
                timeout=self.timeout,
                trust_env=not here,  # no proxy to loopback
            )
        except (ImportError, ValueError) as error:  # a SOCKS proxy needs another package, and is found in ALL_PROXY
            raise ServerError(
                f"{self.url} can't be reached through the proxy that the environment names: {error} Unset ALL_PROXY, "
                f"HTTP_PROXY and HTTPS_PROXY, or add {host} to NO_PROXY",
                0,
            ) from error

    def request(self, call: Call) -> dict[str, Any]:
        """The arguments of a request of `httpx`."""
        content = dict(call.content)
        headers = {**content.pop("headers", {}), **call.headers}
        path = call.path.replace("{collection}", segment(self.collection))
        return {"method": call.method, "url": path, "params": dict(call.params), "headers": headers, **content}

    def exchange(self, steps: Steps[Result]) -> Doings[Result]:
        """Carry the steps out; returns what comes out. Raises `ServerError` for a call that fails in the end."""
        reply: Any = None
        while True:
            try:
                call = steps.send(reply)
            except StopIteration as done:
                return done.value  # type: ignore[no-any-return]
            reply = yield from self._reply(call)

    def _reply(self, call: Call) -> Doings[httpx.Response]:
        patience = Patience(self.patience)
        if call.after:
            yield call.after
        while True:
            outcome = yield call
            assert outcome is not None, "a call has an outcome"
            if isinstance(outcome, httpx.Response):
                self._met = True
                if outcome.is_success:
                    return outcome
            failure = self._failure(outcome)
            pause = patience.pause(_asked(outcome)) if self._worth_repeating(call, outcome, failure) else None
            if pause is None:
                raise failure from (outcome if isinstance(outcome, Exception) else None)
            yield pause

    def _failure(self, outcome: httpx.Response | httpx.TransportError) -> ServerError:
        if isinstance(outcome, httpx.TransportError):
            why = str(outcome) or type(outcome).__name__
            return ServerError(f"no answer from {self.url}: {why}; is the server running?", 0)
        message = _message(outcome)
        again = outcome.status_code in _BUSY or message.startswith(_WORKER_DIED)
        return ServerError(f"{outcome.status_code}: {message}", outcome.status_code, again=again)

    def _worth_repeating(
        self, call: Call, outcome: httpx.Response | httpx.TransportError, failure: ServerError
    ) -> bool:
        """Whether to send it again; a server that has never answered is taken not to be there."""
        if isinstance(outcome, httpx.TransportError):
            return call.repeat == "read" and isinstance(outcome, _LOST) and self._met
        return call.repeat != "never" and failure.again


def advance(doings: Doings[Result], outcome: Outcome) -> tuple[Call | float | None, Result | None]:
    """What is to be done next, or None and the result."""
    try:
        return doings.send(outcome), None
    except StopIteration as done:
        return None, done.value


def _asked(outcome: httpx.Response | httpx.TransportError) -> float | None:
    return retry_after(outcome) if isinstance(outcome, httpx.Response) else None


def _of_key(key: str, url: str) -> dict[str, str]:
    """The header that carries the key; with a password in the address, Authorization is the proxy's."""
    if not key:
        return {}
    if not (key.isascii() and key.isprintable()):
        raise ServerError(f"the API key (argument, --api-key or {API_KEY}) has characters that no key has", 0)
    return {"x-api-key": key} if httpx.URL(url).userinfo else {"authorization": f"Bearer {key}"}


def _message(reply: httpx.Response) -> str:
    try:
        content = reply.json()
        return str(content["error"]["message"] if "error" in content else content["message"])
    except (ValueError, KeyError, TypeError):
        return reply.text[:200]
