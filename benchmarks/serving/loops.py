"""When requests are sent, and which of their latencies count: a closed and an open loop.

Closed loop: each client sends its next request when its last one is answered. Latencies are of what is answered within
the window; throughput counts the part of every request's time that lies in the window, as a server that answers in
bursts would otherwise be worth one burst more or less. Open loop: arrivals at a constant rate,
whatever the server does; counted are the arrivals scheduled within the window, and their latency begins when they were
scheduled, not when a connection was free: a server that stalls is charged with everything that would have come
meanwhile.
The process around them is `benchmarks.serving.generator`; the numbers go to `benchmarks.serving.load`.
"""

import asyncio
import math
from collections import Counter, deque
from collections.abc import Coroutine, Sequence
from typing import Any

from benchmarks.serving.connection import NO_REPLY, Connection

_OPENED_BEFOREHAND = 8
_POLL_SECONDS = 0.005
_RETRY_SECONDS = 0.1


class Loop:
    """What both loops share: connections, and what was counted."""

    def __init__(self, plan: dict[str, Any], requests: Sequence[bytes]) -> None:
        self.plan = plan
        self.requests = requests
        self.latencies: list[float] = []
        self.late: list[float] = []
        self.statuses: Counter[int] = Counter()
        self.done = 0.0
        self.sent = self.answered = 0
        self.sending = True
        self.tasks: set[asyncio.Task[None]] = set()
        self.connections: list[Connection] = []
        self.now = asyncio.get_running_loop().time

    async def connect(self) -> Connection:
        """One more connection; OSError if the server takes none."""
        loop = asyncio.get_running_loop()
        _, found = await loop.create_connection(lambda: Connection(self.finished), self.plan["host"], self.plan["port"])
        self.connections.append(found)
        return found

    def send(self, connection: Connection, started: float) -> None:
        """Send the next request in turn."""
        connection.send(self.requests[self.sent % len(self.requests)], started)
        self.sent += 1

    def count(self, latency: float, status: int) -> None:
        """Count one reply of the window."""
        self.statuses[status] += 1
        if 200 <= status < 300:
            self.latencies.append(latency)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine beside everything else."""
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def drain(self) -> None:
        """Send nothing more, and wait for what is on its way."""
        self.sending = False
        deadline = self.now() + self.plan["drain"]
        while self.answered < self.sent and self.now() < deadline:
            await asyncio.sleep(_POLL_SECONDS)
        for task in self.tasks:
            task.cancel()
        for connection in self.connections:
            connection.close()

    def finished(self, connection: Connection, status: int) -> None:
        """A connection has its reply."""
        raise NotImplementedError


class ClosedLoop(Loop):
    """As many requests on their way as there are clients."""

    began: float = math.inf
    end: float = math.inf

    async def start(self) -> None:
        """Open every connection, then send."""
        for _ in range(self.plan["clients"]):
            await self.connect()
        for connection in self.connections:
            self.send(connection, self.now())

    async def window(self) -> float:
        """Count until the plan's seconds are over or its requests answered; returns the seconds."""
        self.began = self.now()
        latest = self.began + self.plan["seconds"]
        while self.now() < latest and not 0 < self.plan["requests"] <= self.statuses.total():
            await asyncio.sleep(min(0.05, max(0.0, latest - self.now())))
        self.end = self.now()
        return self.end - self.began

    async def drain(self) -> None:
        """Go on until what was on its way at the window's end is answered: without others it would be so sooner."""
        deadline = self.end + self.plan["drain"]
        while any(one.busy and one.started < self.end for one in self.connections) and self.now() < deadline:
            await asyncio.sleep(_POLL_SECONDS)
        await super().drain()

    def finished(self, connection: Connection, status: int) -> None:
        """Count, and send the next."""
        now = self.now()
        self.answered += 1
        if self.began <= now <= self.end:
            self.count(now - connection.started, status)
        if 200 <= status < 300:
            inside = min(now, self.end) - max(connection.started, self.began)
            self.done += max(0.0, inside) / (now - connection.started)
        if not self.sending:
            return
        if connection.usable:
            self.send(connection, now)
        else:
            self.spawn(self._replace())

    async def _replace(self) -> None:
        while self.sending:
            try:
                self.send(await self.connect(), self.now())
                return
            except OSError:
                if self.began <= self.now() <= self.end:
                    self.count(0.0, NO_REPLY)
                await asyncio.sleep(_RETRY_SECONDS)


class OpenLoop(Loop):
    """Arrivals at a constant rate; connections are opened as they are needed, up to a bound."""

    async def start(self) -> None:
        """Open some connections, and let the first request arrive."""
        for _ in range(min(_OPENED_BEFOREHAND, self.plan["most_connections"])):
            await self.connect()
        rate = self.plan["rate"]
        self.first = round(rate * self.plan["warm_up"])
        self.total = self.first + round(rate * self.plan["seconds"])
        self.idle = [*self.connections]
        self.waiting: deque[float] = deque()
        self.open = len(self.connections)
        self.opening = 0
        self.arrived = 0
        self.began = self.now()
        self._arrive()

    async def window(self) -> float:
        """Wait until the last arrival was scheduled; returns the seconds of the window."""
        seconds = float(self.plan["seconds"])
        await asyncio.sleep(max(0.0, self._due(self.total) - self.now()))
        return seconds

    async def drain(self) -> None:
        """Wait for what is on its way; what stays unanswered counts as such."""
        deadline = self.now() + self.plan["drain"]
        while self.waiting and self.now() < deadline:
            await asyncio.sleep(_POLL_SECONDS)
        self.waiting.clear()
        await super().drain()
        self.statuses[NO_REPLY] += self.total - self.first - self.statuses.total()
        self.done = float(len(self.latencies))

    def finished(self, connection: Connection, status: int) -> None:
        """Count if the arrival was scheduled in the window; then the connection takes who waits longest."""
        self.answered += 1
        if connection.started >= self._due(self.first):
            self.count(self.now() - connection.started, status)
        if connection.usable:
            self.idle.append(connection)
        else:
            self.open -= 1
        self._dispatch()

    def _due(self, number: int) -> float:
        return float(self.began + number / self.plan["rate"])

    def _arrive(self) -> None:
        now = self.now()
        while self.arrived < self.total and self._due(self.arrived) <= now:
            due = self._due(self.arrived)
            self.waiting.append(due)
            self.late.append(now - due)
            self.arrived += 1
        self._dispatch()
        if self.arrived < self.total:
            asyncio.get_running_loop().call_at(self._due(self.arrived), self._arrive)

    def _dispatch(self) -> None:
        while self.waiting and self.idle:
            connection = self.idle.pop()
            if connection.usable:
                self.send(connection, self.waiting.popleft())
            else:
                self.open -= 1
        lacking = min(len(self.waiting) - self.opening, self.plan["most_connections"] - self.open - self.opening)
        for _ in range(lacking):
            self.opening += 1
            self.spawn(self._grow())

    async def _grow(self) -> None:
        try:
            connection = await self.connect()
        except OSError:
            await asyncio.sleep(_RETRY_SECONDS)
            self.opening -= 1
        else:
            self.opening -= 1
            self.open += 1
            self.idle.append(connection)
        self._dispatch()
