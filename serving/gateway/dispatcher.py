"""Who is answered when: what waits just then travels together in a frame, as soon as a worker is free.

There are two lanes. What brings images is slow, and fills frames that take about as long as `_FRAME_SECONDS`; what
brings none is quick, and goes before it, but for every other frame. So a search by id waits for no more than the frames
that are under way. Whoever would have to wait longer than `patience` is told at once when to come again; where the
line turns out slower than that, nothing waits longer than `_OVERDUE` times as long.
"""

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from serving.gateway.lane import Lane, Waiting
from serving.gateway.origin import NOWHERE, Origin
from serving.gateway.upstream import Lost, NotSent
from serving.protocol.frames import Answered, Work
from serving.protocol.messages import Answer, RequestError
from serving.protocol.operations import Request

Send = Callable[[Sequence[Request], Sequence[str]], Awaitable[Answered]]

_FRAME_SECONDS = 0.1
_MOST_IMAGES, _FIRST_IMAGES = 64, 8
_FRAME_BYTES = 8 << 20
_REPLY_BYTES = 1 << 20  # TorchServe reads a reply again from its beginning with every packet
_PAUSE_SECONDS = 0.05
_OVERDUE = 2.0  # or half of a line that is as long as it may be would wait for nothing, whenever it is a bit slower
_ATTEMPTS = 3  # of them the last alone, so that only the cause of a worker's death is not answered
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Limits:
    """`slots` frames are under way at once, each of at most so many `requests`.

    `patience` (seconds) bounds the wait that is foreseen, and `waiting` the requests in line. Until an image was
    embedded, one is taken to need `guess` seconds: with 0 nobody is refused because of a guess.
    """

    slots: int = 1
    requests: int = 64
    patience: float = 5.0
    waiting: int = 10_000
    guess: float = 0.0


@dataclass(frozen=True, slots=True)
class Journey:
    """A frame that is over: `begun` by the monotonic clock, it took `seconds`.

    `work` is what its worker said of it, and `error` why it was lost.
    """

    requests: Sequence[Waiting]
    begun: float
    seconds: float
    work: Work | None = None
    error: str = ""


class Pace:
    """How long an image (or a request) takes of one worker, as seen lately, in seconds; `first` is a guess."""

    def __init__(self, first: float) -> None:
        self.seconds = first
        self._frames = 0

    def seen(self, otherwise: float) -> float:
        """The same, but `otherwise` until something was seen."""
        return self.seconds if self._frames else otherwise

    def saw(self, seconds: float, count: int) -> None:
        """`count` of them took `seconds` together."""
        self._frames += 1
        self.seconds += max(0.1, 1 / self._frames) * (seconds / max(count, 1) - self.seconds)


class Dispatcher:
    """Answers requests by frames that `send` carries to a worker, with their origins; for one event loop.

    Each of `carried` is told of every frame that is over.
    """

    def __init__(self, send: Send, limits: Limits = Limits()) -> None:
        self.quick, self.slow = Lane(), Lane()
        self.limits = limits
        self.under_way = 0
        self._images_under_way = 0
        self.carried: list[Callable[[Journey], None]] = []
        self._send = send
        self._per_request, self._per_image = Pace(0.001), Pace(_FRAME_SECONDS / _FIRST_IMAGES)
        self._image_work = Pace(self._per_image.seconds)
        self._quick_last = False
        self._pausing = self._scheduled = False
        self._carrying: set[asyncio.Task[None]] = set()

    async def answer(self, request: Request, *, caller: str = "", origin: Origin = NOWHERE) -> Answer | RequestError:
        """The answer to a request; if it is cancelled before its frame leaves, no work is done for it.

        `caller` is whose turn it uses, and `origin` what logs and traces call it.
        """
        loop = asyncio.get_running_loop()
        one = Waiting(request, caller, time.monotonic(), loop.create_future(), origin)
        if (refusal := self.overload(one.images)) is not None:
            return refusal
        (self.slow if one.images else self.quick).push(one)
        self._pump_soon()
        return await one.future

    def overload(self, images: int) -> RequestError | None:
        """Why a request with so many images can't wait in line, and when to come again; None if it can."""
        seconds = self.quick.requests * self._per_request.seen(0.0)
        full = self.slow.requests + self.quick.requests >= self.limits.waiting
        if images or full:
            seconds += (self.slow.images + self._images_under_way) * self._per_image.seen(self.limits.guess)
        seconds /= self.limits.slots
        if not full and seconds <= self.limits.patience:
            return None
        again = max(1, math.ceil(seconds / 2))
        return RequestError("the server is overloaded: try again later", 503, retry_after=again)

    async def close(self) -> None:
        """Wait for the frames under way."""
        await asyncio.gather(*self._carrying, return_exceptions=True)

    def _pump_soon(self) -> None:
        """Once this turn of the loop is over, so that what arrives with it travels together."""
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._pump)

    def _pump(self) -> None:
        self._scheduled = False
        while not self._pausing and self.under_way < self.limits.slots and (frame := self._next_frame()):
            self.under_way += 1
            task = asyncio.create_task(self._carry(frame))
            self._carrying.add(task)
            task.add_done_callback(self._carrying.discard)

    def _next_frame(self) -> list[Waiting]:
        """What travels next: the quick before the slow, but in turn where both wait."""
        first, second = (self.slow, self.quick) if self._quick_last else (self.quick, self.slow)
        lane = first if len(first) else second
        frame = self._taken(lane) or self._taken(first)
        self._quick_last = bool(frame) and not frame[0].images
        return frame

    def _taken(self, lane: Lane) -> list[Waiting]:
        room = max(1, min(_MOST_IMAGES, int(_FRAME_SECONDS / self._image_work.seconds)))
        frame: list[Waiting] = []
        size = reply = 0
        while len(frame) < self.limits.requests and (one := self._patient(lane)) is not None:
            fits = one.images <= room and size + one.size <= _FRAME_BYTES and reply + one.reply <= _REPLY_BYTES
            alone = one.attempts == _ATTEMPTS - 1
            if frame and (alone or not fits):
                lane.push_back(one)
                break
            frame.append(one)
            room, size, reply = room - one.images, size + one.size, reply + one.reply
            if alone:
                break
        return frame

    def _patient(self, lane: Lane) -> Waiting | None:
        """The next that has not waited too long; the others are told so."""
        oldest = time.monotonic() - _OVERDUE * self.limits.patience
        while (one := lane.pop()) is not None:
            if one.since >= oldest:
                return one
            one.settle(RequestError("the server is overloaded or starting: try again later", 503, retry_after=1))
        return None

    async def _carry(self, frame: list[Waiting]) -> None:
        begun = time.monotonic()
        images = sum(one.images for one in frame)
        self._images_under_way += images
        try:
            answered = await self._send([one.request for one in frame], [str(one.origin) for one in frame])
            for one, answer in zip(frame, answered.answers, strict=True):
                one.settle(answer)
            self._saw(frame, begun, answered.work)
        except NotSent as error:
            self._wait_for_workers(frame, error)
        except Lost as error:
            self._lose(frame, begun, error)
        except Exception as error:
            _LOG.exception("a frame of %d requests failed: %s", len(frame), _ids(frame))
            for one in frame:
                one.settle(RequestError(f"internal error: {type(error).__name__}", 500))
        finally:
            self.under_way -= 1
            self._images_under_way -= images
            self._pump_soon()

    def _saw(self, frame: list[Waiting], begun: float, work: Work | None) -> None:
        seconds = time.monotonic() - begun
        images = sum(one.images for one in frame)
        (self._per_image if images else self._per_request).saw(seconds, images or len(frame))
        if images:  # a busy gateway's own delays must not make frames small: then it would have still more to do
            self._image_work.saw(work.seconds if work is not None else seconds, images)
        self._tell(Journey(frame, begun, seconds, work))

    def _tell(self, journey: Journey) -> None:
        for tell in self.carried:
            tell(journey)

    def _wait_for_workers(self, frame: list[Waiting], error: NotSent) -> None:
        """Nobody took the frame: all of it waits again, for as long as it has patience left."""
        if not self._pausing:
            _LOG.warning("%s", error)
            self._pausing = True
            asyncio.get_running_loop().call_later(_PAUSE_SECONDS, self._go_on)
        for one in reversed(frame):
            self._lane_of(one).push_back(one)

    def _go_on(self) -> None:
        self._pausing = False
        self._pump()

    def _lose(self, frame: list[Waiting], begun: float, error: Lost) -> None:
        """A worker died with the frame: reads go again, of writes nobody here knows whether they were made."""
        self._tell(Journey(frame, begun, time.monotonic() - begun, error=str(error)))
        _LOG.error("a frame of %d requests was lost: %s (%s)", len(frame), error, _ids(frame))
        for one in reversed(frame):
            one.attempts += 1
            one.since = time.monotonic()
            if one.changes:
                lost = "the worker that had this request died, and it may have been carried out: send it again"
                one.settle(RequestError(lost, 503, retry_after=1))
            elif one.attempts >= _ATTEMPTS:
                one.settle(RequestError(f"the worker died {_ATTEMPTS} times while it had this request", 500))
            else:
                self._lane_of(one).push_back(one)

    def _lane_of(self, one: Waiting) -> Lane:
        return self.slow if one.images else self.quick


def _ids(frame: Sequence[Waiting]) -> str:
    return ", ".join(str(one.origin) for one in frame)
