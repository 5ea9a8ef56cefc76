"""Memory that many requests share: what one takes, others wait for until it is given back."""

import asyncio
from collections import deque

from serving.protocol.messages import RequestError

_WAIT_SECONDS = 10.0


class Room:
    """So many bytes, handed out in the order in which they were asked for."""

    def __init__(self, size: int) -> None:
        self.size = self.free = size
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def take(self, count: int) -> None:
        """Wait until so many bytes are free, and take them; raises `RequestError` (503) if that takes too long."""
        if count <= self.free and not self._waiting:
            self.free -= count
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((count, future))
        try:
            await asyncio.wait_for(future, _WAIT_SECONDS)
        except TimeoutError as error:
            raise RequestError("too many large requests at once: try again later", 503, retry_after=5) from error
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                self.give(count)
            raise

    def give(self, count: int) -> None:
        """Give bytes back."""
        self.free += count
        while self._waiting and (self._waiting[0][1].done() or self._waiting[0][0] <= self.free):
            wanted, future = self._waiting.popleft()
            if not future.done():
                self.free -= wanted
                future.set_result(None)


class Held:
    """What one request has taken of the rooms, to be given back all at once; `waiting` while there is no place."""

    def __init__(self) -> None:
        self.waiting = False
        self._taken: list[tuple[Room, int]] = []

    async def take(self, room: Room, count: int) -> None:
        """Take so many bytes of a room."""
        self.waiting = True
        try:
            await room.take(count)
        finally:
            self.waiting = False
        self._taken.append((room, count))

    def release(self) -> None:
        """Give everything back."""
        for room, count in self._taken:
            room.give(count)
        self._taken.clear()
