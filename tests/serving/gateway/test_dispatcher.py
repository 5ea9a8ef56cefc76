"""What waits travels together: who goes first, who waits for whom, and what becomes of a frame that is lost."""

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from serving.gateway.dispatcher import Dispatcher, Limits
from serving.gateway.upstream import Lost, NotSent
from serving.protocol.frames import Answered, Work
from serving.protocol.messages import Answer, RequestError
from serving.protocol.operations import CountRequest, DeleteRequest, EmbedRequest, GetRequest, Request, SearchRequest

QUICK = CountRequest()


def embed(mark: str, images: int = 1) -> EmbedRequest:
    return EmbedRequest(images=(mark.encode(),) * images)


@dataclass
class Workers:
    """What stands where TorchServe does: it holds every frame until it is told how it ends."""

    frames: list[Sequence[Request]] = field(default_factory=list)
    open: asyncio.Event = field(default_factory=asyncio.Event)
    failures: list[Exception] = field(default_factory=list)
    delay: float = 0.0

    async def send(self, requests: Sequence[Request], origins: Sequence[str]) -> Answered:
        self.frames.append(requests)
        await self.open.wait()
        await asyncio.sleep(self.delay)
        if self.failures:
            raise self.failures.pop(0)
        return Answered([Answer("a/1", more={"of": request}) for request in requests])


def run(work: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(20):
            await work

    asyncio.run(bounded())


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def test_a_lone_request_waits_for_nobody_and_a_crowd_travels_together() -> None:
    async def work() -> None:
        workers = Workers()
        dispatcher = Dispatcher(workers.send, Limits(slots=1))
        first = asyncio.create_task(dispatcher.answer(embed("first")))
        await settle()
        assert workers.frames == [[embed("first")]]
        others = [asyncio.create_task(dispatcher.answer(embed(str(number)))) for number in range(5)]
        await settle()
        assert len(workers.frames) == 1, "the one worker is busy"
        workers.open.set()
        answers = await asyncio.gather(first, *others)
        assert workers.frames[1] == [embed(str(number)) for number in range(5)]
        assert [answer.more["of"] for answer in answers if isinstance(answer, Answer)] == [
            embed("first"),
            *workers.frames[1],
        ]

    run(work())


def test_searches_by_id_do_not_queue_behind_images() -> None:
    async def work() -> None:
        workers = Workers()
        dispatcher = Dispatcher(workers.send, Limits(slots=1))
        tasks = [asyncio.create_task(dispatcher.answer(embed("running")))]
        await settle()
        tasks += [asyncio.create_task(dispatcher.answer(embed(str(number), images=8))) for number in range(20)]
        await settle()
        tasks += [asyncio.create_task(dispatcher.answer(SearchRequest(ids=("a",)))) for _ in range(3)]
        await settle()
        workers.open.set()
        await asyncio.gather(*tasks)
        assert workers.frames[1] == [SearchRequest(ids=("a",))] * 3
        assert all(not isinstance(one, SearchRequest) for frame in workers.frames[2:] for one in frame)

    run(work())


def test_neither_lane_starves_the_other() -> None:
    async def work() -> None:
        workers = Workers()
        dispatcher = Dispatcher(workers.send, Limits(slots=1, requests=1))
        tasks = [asyncio.create_task(dispatcher.answer(embed("running")))]
        await settle()
        tasks += [asyncio.create_task(dispatcher.answer(one)) for one in [QUICK] * 4 + [embed("x")] * 4]
        await settle()
        workers.open.set()
        await asyncio.gather(*tasks)
        kinds = [isinstance(frame[0], EmbedRequest) for frame in workers.frames[1:]]
        assert kinds == [False, True] * 4

    run(work())


def test_one_caller_does_not_starve_another() -> None:
    async def work() -> None:
        workers = Workers()
        dispatcher = Dispatcher(workers.send, Limits(slots=1, requests=2))
        tasks = [asyncio.create_task(dispatcher.answer(embed("running"), caller="greedy"))]
        await settle()
        tasks += [asyncio.create_task(dispatcher.answer(embed("g"), caller="greedy")) for _ in range(10)]
        tasks += [asyncio.create_task(dispatcher.answer(embed("m"), caller="modest")) for _ in range(2)]
        await settle()
        workers.open.set()
        await asyncio.gather(*tasks)
        assert workers.frames[1:3] == [[embed("g"), embed("m")]] * 2

    run(work())


def test_frames_are_bounded() -> None:
    async def work() -> None:
        workers = Workers()
        dispatcher = Dispatcher(workers.send, Limits(slots=1))
        tasks = [asyncio.create_task(dispatcher.answer(QUICK))]
        await settle()
        pictures = GetRequest(ids=("a",), include=frozenset(["image"]))
        tasks += [asyncio.create_task(dispatcher.answer(pictures)) for _ in range(3)]
        tasks += [asyncio.create_task(dispatcher.answer(embed("64", images=64)))]
        tasks += [asyncio.create_task(dispatcher.answer(EmbedRequest(images=(bytes(5 << 20),)))) for _ in range(2)]
        await settle()
        workers.open.set()
        await asyncio.gather(*tasks)
        assert [len(frame) for frame in workers.frames] == [1] * 7

    run(work())


def test_reads_of_a_lost_frame_go_again_and_writes_are_told() -> None:
    async def work() -> None:
        workers = Workers(failures=[Lost("a worker died")])
        dispatcher = Dispatcher(workers.send, Limits(slots=1))
        delete, count = (
            asyncio.create_task(dispatcher.answer(one)) for one in (DeleteRequest(ids=("a",)), CountRequest())
        )
        workers.open.set()
        told, counted = await asyncio.gather(delete, count)
        assert isinstance(told, RequestError)
        assert (told.status, told.retry_after) == (503, 1)
        assert "send it again" in str(told)
        assert isinstance(counted, Answer)
        assert workers.frames == [[DeleteRequest(ids=("a",)), CountRequest()], [CountRequest()]]

    run(work())


def test_what_kills_workers_fails_alone() -> None:
    async def work() -> None:
        poison = embed("poison")
        frames: list[Sequence[Request]] = []

        async def send(requests: Sequence[Request], origins: Sequence[str]) -> Answered:
            frames.append(requests)
            await asyncio.sleep(0)
            if poison in requests:
                raise Lost("a worker died")
            return Answered([Answer("a/1") for _ in requests])

        dispatcher = Dispatcher(send, Limits(slots=1))
        good = [asyncio.create_task(dispatcher.answer(embed(str(number)))) for number in range(4)]
        bad = asyncio.create_task(dispatcher.answer(poison))
        assert all(isinstance(one, Answer) for one in await asyncio.gather(*good))
        refused = await bad
        assert isinstance(refused, RequestError)
        assert refused.status == 500
        assert frames[-1] == [poison] or [poison] in frames

    run(work())


def test_while_no_worker_is_there_requests_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.gateway.dispatcher._PAUSE_SECONDS", 0.001)

    async def work() -> None:
        workers = Workers(failures=[NotSent("nobody is there")] * 5)
        workers.open.set()
        dispatcher = Dispatcher(workers.send, Limits(slots=2))
        answers = await asyncio.gather(*(dispatcher.answer(DeleteRequest(ids=(str(n),))) for n in range(3)))
        assert all(isinstance(one, Answer) for one in answers), "what was not sent may be sent again, writes too"

    run(work())


def test_nobody_waits_longer_than_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.gateway.dispatcher._PAUSE_SECONDS", 0.001)

    async def work() -> None:
        workers = Workers(failures=[NotSent("nobody is there")] * 10_000)
        workers.open.set()
        dispatcher = Dispatcher(workers.send, Limits(slots=1, patience=0.05))
        refused = await dispatcher.answer(QUICK)
        assert isinstance(refused, RequestError)
        assert (refused.status, refused.retry_after) == (503, 1)

    run(work())


def test_overload_is_told_at_once() -> None:
    async def work() -> None:
        workers = Workers(delay=0.1)
        workers.open.set()
        dispatcher = Dispatcher(workers.send, Limits(slots=1, patience=1.0))
        guessed = [dispatcher.answer(embed("first", images=8)) for _ in range(20)]
        assert all(isinstance(one, Answer) for one in await asyncio.gather(*guessed)), (
            "nobody knows yet how long it takes"
        )
        workers.open.clear()
        tasks = [asyncio.create_task(dispatcher.answer(embed("x", images=64))) for _ in range(10)]
        await settle()
        late = await dispatcher.answer(embed("late"))
        assert isinstance(late, RequestError)
        assert late.status == 503
        assert late.retry_after
        quick = asyncio.create_task(dispatcher.answer(QUICK))
        await settle()
        workers.open.set()
        assert isinstance(await quick, Answer), "what brings no image does not wait for images"
        assert sum(isinstance(one, Answer) for one in await asyncio.gather(*tasks)) >= 1

    run(work())


def test_a_line_that_turns_out_slower_is_still_answered_for_a_while() -> None:
    async def work() -> None:
        workers = Workers()
        dispatcher = Dispatcher(workers.send, Limits(slots=1, patience=1.0))
        late = asyncio.create_task(dispatcher.answer(embed("running")))
        await settle()
        waits = asyncio.create_task(dispatcher.answer(embed("waits")))
        await settle()
        await asyncio.sleep(1.05)  # longer than was foreseen
        workers.open.set()
        assert all(isinstance(one, Answer) for one in await asyncio.gather(late, waits))

    run(work())


def test_the_wait_that_is_foreseen_is_of_images_and_workers() -> None:
    async def work() -> None:
        dispatcher = Dispatcher(Workers().send, Limits(slots=2, patience=1.0, guess=0.0125))
        assert dispatcher.overload(1) is None
        lines = [asyncio.create_task(dispatcher.answer(embed("x", images=64))) for _ in range(2)]
        await settle()
        assert dispatcher.overload(1) is None, "128 images at 12.5 ms for two workers are 0.8 s"
        lines.append(asyncio.create_task(dispatcher.answer(embed("x", images=64))))
        await settle()
        refusal = dispatcher.overload(1)
        assert refusal is not None
        assert (refusal.status, refusal.retry_after) == (503, 1)
        assert dispatcher.overload(0) is None, "no image, no wait behind images"
        for one in lines:
            one.cancel()

    run(work())


def test_delays_that_are_not_the_workers_do_not_make_frames_small() -> None:
    async def work() -> None:
        sizes: list[int] = []

        async def delayed(requests: Sequence[Request], origins: Sequence[str]) -> Answered:
            sizes.append(len(requests))
            await asyncio.sleep(0.1)
            return Answered([Answer("a/1") for _ in requests], Work(1, 0.0, 0.01 * len(requests)))

        dispatcher = Dispatcher(delayed, Limits(slots=1))
        await asyncio.gather(*(dispatcher.answer(embed(str(number))) for number in range(80)))
        assert min(sizes[:-1]) >= 8, sizes

    run(work())


def test_no_work_is_done_for_whoever_has_gone() -> None:
    async def work() -> None:
        workers = Workers()
        dispatcher = Dispatcher(workers.send, Limits(slots=1))
        first = asyncio.create_task(dispatcher.answer(embed("first")))
        await settle()
        gone = asyncio.create_task(dispatcher.answer(embed("gone")))
        stays = asyncio.create_task(dispatcher.answer(embed("stays")))
        await settle()
        gone.cancel()
        workers.open.set()
        await asyncio.gather(first, stays)
        assert workers.frames[1:] == [[embed("stays")]]
        assert (dispatcher.slow.requests, dispatcher.slow.images, dispatcher.slow.size) == (0, 0, 0)

    run(work())
