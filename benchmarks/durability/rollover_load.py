"""The process that asks a server all the time while its release changes: embeds, searches and upserts, in an open loop.

Arrivals are evenly spaced; a latency begins when a request was due. 64 threads have a connection each, so that a slow
reply holds up no other. Every reply is checked: it must name a release, and a search with the picture of the item that
was acknowledged last must find it with a score of 1, which happens only if the item is stored, and query and vector are
of one release. The parent, `benchmarks.durability.rollover`, compares the embeddings at the end.
"""

import base64
import contextlib
import http.client
import json
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from benchmarks.tools.child import hear_parent, tell_parent
from serving.protocol.agreed import MODEL

THREADS = 64
KINDS = ("embed", "search", "upsert", "find")  # in turn
SAME = 0.99  # a score that only the same picture in the same space has; 8-bit files differ a little from batch to batch
SHOWN = 16  # numbers of an embedding that are kept


class Due(NamedTuple):
    """A request and when it is due, by the monotonic clock."""

    at: float
    kind: str
    number: int


@dataclass
class Ledger:
    """What came of it. `requests`: [seconds since the epoch, milliseconds, kind, status, release, what was wrong]."""

    requests: list[list[Any]] = field(default_factory=list)
    embeddings: list[tuple[str, int, list[float]]] = field(default_factory=list)
    acknowledged: list[tuple[str, int]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def latest(self) -> tuple[str, int] | None:
        """The item that was acknowledged last, and which picture it has."""
        with self.lock:
            return self.acknowledged[-1] if self.acknowledged else None


class Asker(threading.Thread):
    """One connection."""

    def __init__(self, port: int, images: list[bytes], due: "queue.SimpleQueue[Due | None]", ledger: Ledger) -> None:
        super().__init__(daemon=True)
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self._images = images
        self._due = due
        self._ledger = ledger
        self._kinds = {"embed": self._embed, "search": self._search, "upsert": self._upsert, "find": self._find}

    def run(self) -> None:
        """Take requests until there are no more."""
        while (due := self._due.get()) is not None:
            delay = due.at - time.monotonic()
            if delay > 0:
                time.sleep(delay)
            status, release, wrong = self._ask(due)
            latency = 1000 * (time.monotonic() - due.at)
            with self._ledger.lock:
                self._ledger.requests.append([time.time(), round(latency, 3), due.kind, status, release, wrong])

    def _ask(self, due: Due) -> tuple[int, str, str]:
        try:
            return self._kinds[due.kind](due.number)
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            return 0, "", f"{type(error).__name__}: {error}"

    def _embed(self, number: int) -> tuple[int, str, str]:
        picture = number % len(self._images)
        status, reply = self._post("op=embed", self._images[picture])
        if status != 200:
            return status, "", json.dumps(reply)
        embedding = reply["results"][0]["embedding"][:SHOWN]
        with self._ledger.lock:
            self._ledger.embeddings.append((reply["release"], picture, embedding))
        return status, reply["release"], ""

    def _search(self, number: int) -> tuple[int, str, str]:
        """By a picture that the collection has: the nearest is it, or one like it, unless two spaces are compared."""
        return self._looked_for(number, lambda item: {})

    def _find(self, number: int) -> tuple[int, str, str]:
        """The item that was acknowledged last: it must be found, whoever wrote it."""
        return self._looked_for(number, lambda item: {"filter": {"item": item}})

    def _looked_for(self, number: int, options: Callable[[str], dict[str, Any]]) -> tuple[int, str, str]:
        latest = self._ledger.latest()
        if latest is None:
            return self._embed(number)
        item, picture = latest
        image = base64.b64encode(self._images[picture]).decode()
        body = json.dumps({"images": [image], "k": 10, **options(item)}).encode()
        status, reply = self._post("op=search", body, "application/json")
        if status != 200:
            return status, "", json.dumps(reply)
        scores = [one["score"] for one in reply["results"][0]["neighbours"]]
        best = max(scores, default=0.0)
        return status, reply["release"], "" if best >= SAME else f"the best of {len(scores)} scores is {best:.3f}"

    def _upsert(self, number: int) -> tuple[int, str, str]:
        picture, name = number % len(self._images), f"load/{number}"
        body, content_type = _multipart(name, self._images[picture])
        status, reply = self._post("op=upsert", body, content_type)
        if status != 200:
            return status, "", json.dumps(reply)
        if reply["results"][0].get("outcome") is None:
            return status, reply["release"], json.dumps(reply["results"][0])
        with self._ledger.lock:
            self._ledger.acknowledged.append((name, picture))
        return status, reply["release"], ""

    def _post(self, query: str, body: bytes, content_type: str = "image/jpeg") -> tuple[int, dict[str, Any]]:
        headers = {"Content-Type": content_type}
        self._connection.request("POST", f"/models/{MODEL}/invoke?{query}", body, headers)
        reply = self._connection.getresponse()
        content = reply.read()
        try:
            return reply.status, json.loads(content)
        except ValueError:
            return reply.status, {"unreadable": content[:200].decode(errors="replace")}


def _multipart(name: str, image: bytes) -> tuple[bytes, str]:
    items = json.dumps([{"id": name, "image": "picture", "metadata": {"item": name}}])
    mark = "rolloverload"
    head = f'--{mark}\r\nContent-Disposition: form-data; name="items"\r\n\r\n{items}\r\n'
    head += f'--{mark}\r\nContent-Disposition: form-data; name="picture"; filename="p.jpg"\r\n'
    head += "Content-Type: image/jpeg\r\n\r\n"
    return head.encode() + image + f"\r\n--{mark}--\r\n".encode(), f"multipart/form-data; boundary={mark}"


def keep_asking(port: int, images: list[bytes], *, rate: float, stop: threading.Event) -> Ledger:
    """Ask until `stop` is set, and wait for what is on its way."""
    due: queue.SimpleQueue[Due | None] = queue.SimpleQueue()
    ledger = Ledger()
    askers = [Asker(port, images, due, ledger) for _ in range(THREADS)]
    for asker in askers:
        asker.start()
    begin = time.monotonic()
    number = 0
    while not stop.is_set():
        at = begin + number / rate
        time.sleep(max(0.0, at - time.monotonic() - 0.05))  # handed over a little before
        due.put(Due(at, KINDS[number % len(KINDS)], number))
        number += 1
    for _ in askers:
        due.put(None)
    for asker in askers:
        asker.join()
    return ledger


def main() -> None:
    """Hear where and what to send, ask until the parent says stop, and report what came of it."""
    order = hear_parent()
    assert order is not None
    plan, images = order
    stop = threading.Event()
    found: list[Ledger] = []
    loop = threading.Thread(
        target=lambda: found.append(keep_asking(plan["port"], images, rate=plan["rate"], stop=stop))
    )
    loop.start()
    hear_parent()
    stop.set()
    loop.join()
    (ledger,) = found
    tell_parent({"requests": ledger.requests, "embeddings": ledger.embeddings, "acknowledged": ledger.acknowledged})


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
