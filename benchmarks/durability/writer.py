"""Writers that store and delete over HTTP without pause, and know what was acknowledged: only what got 200.

A batch whose upsert was not answered, or with an error, may be there whole or not at all; its number is not used again.
A deletion is asked for until it is acknowledged. `benchmarks.durability.checks` looks at what became of it all.
"""

import itertools
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx

from benchmarks.durability.child import names_of
from benchmarks.durability.service import Service
from benchmarks.durability.worker import Account

KEPT = 15  # batches of a writer, before it deletes the oldest
_REPLY_SECONDS = 180.0  # more than TorchServe gives a worker
_PAUSE_SECONDS = 0.05  # after a refusal: with no worker there, it comes at once


class HttpWriter:
    """A thread with a connection of its own."""

    role = "write"

    def __init__(self, service: Service, name: str) -> None:
        self.name = name
        self.heard = (account := Account(name)).heard
        self.refused: Counter[str] = Counter()
        self._account = account
        self._service = service
        self._stop = threading.Event()
        self._may_write = threading.Event()
        self._may_write.set()
        self._writing = threading.Lock()
        self._thread = threading.Thread(target=self._run, name=f"writer {name}")
        self._thread.start()

    def wait_for(self, stage: str) -> None:
        """Until it begins this the next time. Raises `ChildError` if it ends, or is stuck."""
        self._account.wait_for(stage, self._thread.is_alive)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Inside, no request of its is under way."""
        self._may_write.clear()
        try:
            with self._writing:
                yield
        finally:
            self._may_write.set()

    def stop(self) -> None:
        """End it, after the request that is under way."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        with httpx.Client(timeout=_REPLY_SECONDS, trust_env=False) as http:
            for number in itertools.count():
                self._store(http, number)
                if number >= KEPT:
                    self._delete(http, number - KEPT)
                if self._stop.is_set():
                    break
        self._account.wake()

    def _store(self, http: httpx.Client, number: int) -> None:
        request = upsert_of(self._service, self.name, number)
        with self._turn():
            self._account.tell("storing", number)
            if self._asked(lambda: http.post(self._service.address("upsert"), **request)):
                self._account.tell("stored", number)

    def _delete(self, http: httpx.Client, number: int) -> None:
        body = {"ids": names_of(self.name, number)}
        while not self._stop.is_set():
            with self._turn():
                self._account.tell("deleting", number)
                if self._asked(lambda: http.post(self._service.address("delete"), json=body)):
                    self._account.tell("deleted", number)
                    return

    @contextmanager
    def _turn(self) -> Iterator[None]:
        self._may_write.wait()
        with self._writing:
            yield

    def _asked(self, ask: Callable[[], httpx.Response]) -> bool:
        """Whether it was acknowledged; why not is counted."""
        try:
            reply = ask()
        except httpx.TransportError as error:
            self.refused[type(error).__name__] += 1
            self._stop.wait(_PAUSE_SECONDS)
            return False
        if reply.status_code != 200:
            self.refused[f"{reply.status_code} {_said(reply)}"] += 1
            self._stop.wait(_PAUSE_SECONDS)
        return reply.status_code == 200


@contextmanager
def all_paused(writers: Sequence[HttpWriter]) -> Iterator[None]:
    """Inside, nobody writes."""
    with ExitStack() as stack:
        for writer in writers:
            stack.enter_context(writer.paused())
        yield


def upsert_of(service: Service, writer: str, number: int) -> dict[str, Any]:
    """A batch as a multipart request."""
    pictures = service.pictures.of(writer, number)
    items = [{"id": name, "image": f"image{at}"} for at, name in enumerate(names_of(writer, number))]
    files = [(f"image{at}", service.pictures.files[picture]) for at, picture in enumerate(pictures)]
    return {"data": {"items": json.dumps(items)}, "files": files}


def _said(reply: httpx.Response) -> str:
    try:
        content = reply.json()
        return str(content["error"]["message"] if "error" in content else content["message"])[:50]
    except (ValueError, KeyError, TypeError):
        return reply.text[:50]
