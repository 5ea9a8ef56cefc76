"""The clients of `benchmarks.durability.service_kills`: they store, delete and search, and know what must be there.

Each asks by plain HTTP and hides nothing: whatever has no reply with status 200 or 201 is noted, and a write is sent
again, as it was, until it is acknowledged. Each client has ids of its own, so it alone decides what they must be.
"""

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import httpx

AGAIN = "503 with Retry-After"  # the status that says "again"
NO_REPLY = "no reply"
_ITEMS = "/v1/collections/default/items"
_SEARCH = "/v1/collections/default/search"
_REPLY_SECONDS = 60.0
_PAUSE_SECONDS = 0.1  # before a write is sent again
_PAGE = 1000


@dataclass(frozen=True)
class Failed:
    """A request that began at `begun` (`time.monotonic`) and got no success but `what`, described by `text`."""

    begun: float
    what: str
    text: str


class Asking:
    """One connection; `failed` has every request without success."""

    def __init__(self, url: str) -> None:
        self.failed: list[Failed] = []
        self.asked = 0
        self._http = httpx.Client(base_url=url, timeout=_REPLY_SECONDS, trust_env=False)

    def store(self, name: str, label: str, image: bytes) -> bool:
        """Whether storing the image under this id was acknowledged."""
        return self._succeeds("PUT", f"{_ITEMS}/{name}", params={"label": label}, content=image)

    def delete(self, name: str) -> bool:
        """Whether the deletion was acknowledged; of what is no longer there, too."""
        return self._succeeds("POST", f"{_ITEMS}/delete", json={"ids": [name]})

    def search(self, image: bytes) -> bool:
        """Whether a search by an image was answered."""
        return self._succeeds("POST", _SEARCH, params={"k": 3}, content=image)

    def labels(self) -> dict[str, str]:
        """All items by id, with their labels; asked again until every page came."""
        found: dict[str, str] = {}
        cursor: str | None = None
        while True:
            page = self._reply("GET", _ITEMS, params={"limit": _PAGE} | ({"cursor": cursor} if cursor else {}))
            if page is None:
                time.sleep(_PAUSE_SECONDS)
                continue
            content = page.json()
            found |= {item["id"]: item["label"] for item in content["items"]}
            if (cursor := content.get("cursor")) is None:
                return found

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def _succeeds(self, method: str, path: str, **given: object) -> bool:
        return self._reply(method, path, **given) is not None

    def _reply(self, method: str, path: str, **given: object) -> httpx.Response | None:
        begun = time.monotonic()
        self.asked += 1
        try:
            reply = self._http.request(method, path, **given)  # type: ignore[arg-type]
        except httpx.TransportError as error:
            self.failed.append(Failed(begun, NO_REPLY, f"{type(error).__name__} {error}"))
            return None
        if reply.status_code in (200, 201):
            return reply
        again = reply.status_code == 503 and "retry-after" in reply.headers
        self.failed.append(Failed(begun, AGAIN if again else str(reply.status_code), reply.text[:300]))
        return None


class LoadClient:
    """A thread that stores, deletes and searches without pause; `expected` has its items by id, with their labels."""

    def __init__(self, url: str, name: str, images: Sequence[bytes], *, seed: int) -> None:
        self.expected: dict[str, str] = {}
        self.acknowledged = 0
        self.asking = Asking(url)
        self._name = name
        self._images = images
        self._chance = random.Random(f"{seed} {name}")
        self._stopped = threading.Event()
        self._may_ask = threading.Event()
        self._may_ask.set()
        self._turn = threading.Lock()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Inside, everything that it wrote is acknowledged, and nothing is under way."""
        self._may_ask.clear()
        try:
            with self._turn:
                yield
        finally:
            self._may_ask.set()

    def stop(self) -> None:
        """End it, once what it is at is acknowledged."""
        self._stopped.set()
        self._may_ask.set()
        self._thread.join()
        self.asking.close()

    def _run(self) -> None:
        number = 0
        while not self._stopped.is_set():
            self._may_ask.wait()
            with self._turn:
                self._write(number)
                self.asking.search(self._chance.choice(self._images))
            number += 1

    def _write(self, number: int) -> None:
        """Something new, something again with another label, or a deletion."""
        old = self._chance.choice([*self.expected]) if self.expected else None
        deed = self._chance.random()
        if old is not None and deed < 0.3:
            self._until_acknowledged(lambda: self.asking.delete(old))
            del self.expected[old]
            return
        name = old if old is not None and deed < 0.6 else f"{self._name}-{number}"
        image, label = self._chance.choice(self._images), str(number)
        self._until_acknowledged(lambda: self.asking.store(name, label, image))
        self.expected[name] = label

    def _until_acknowledged(self, write: Callable[[], bool]) -> None:
        while not write():
            time.sleep(_PAUSE_SECONDS)
        self.acknowledged += 1


@contextmanager
def all_paused(clients: Sequence[LoadClient]) -> Iterator[None]:
    """Inside, nobody asks anything, and every write is acknowledged."""
    with ExitStack() as stack:
        for client in clients:
            stack.enter_context(client.paused())
        yield


def missing_and_undeleted(expected: dict[str, str], found: dict[str, str]) -> tuple[list[str], list[str]]:
    """Ids that are not there as they were acknowledged, and ids that are there though nobody should have them."""
    missing = [name for name, label in expected.items() if found.get(name) != label]
    return missing, [name for name in found if name not in expected]
