"""The process that sends requests. It hears what to send and how, and says when its window begins and ends.

It has a process of its own so that neither its work nor the benchmark's disturbs the other, and imports nothing
beyond the standard library. Started by `benchmarks.serving.load`.
"""

import asyncio
import contextlib
import selectors
import time
from collections.abc import Sequence
from typing import Any

from benchmarks.serving.loops import ClosedLoop, OpenLoop
from benchmarks.tools.child import hear_parent, tell_parent


async def measure(plan: dict[str, Any], requests: Sequence[bytes]) -> dict[str, Any]:
    """Warm up, count through the window, drain; returns what `benchmarks.serving.load.Outcome` is made of."""
    loop: ClosedLoop | OpenLoop = (ClosedLoop if plan["loop"] == "closed" else OpenLoop)(plan, requests)
    await loop.start()
    await asyncio.sleep(plan["warm_up"])
    tell_parent({"window": "begins"})
    cpu = time.process_time()
    seconds = await loop.window()
    cpu = time.process_time() - cpu
    tell_parent({"window": "ends"})
    await loop.drain()
    return {
        "seconds": seconds,
        "done": loop.done,
        "latencies_ms": [round(1000 * latency, 3) for latency in loop.latencies],
        "late_ms": [round(1000 * late, 3) for late in loop.late],
        "statuses": {str(status): count for status, count in loop.statuses.items() if count},
        "cpu_seconds": cpu,
        "sent": loop.sent,
        "answered": loop.answered,
    }


def _event_loop() -> asyncio.AbstractEventLoop:
    """With select(), whose timers are exact to microseconds; epoll's are rounded up to milliseconds."""
    return asyncio.SelectorEventLoop(selectors.SelectSelector())


def main() -> None:
    """Answer one order after another, until there are no more."""
    while (order := hear_parent()) is not None:
        plan, requests = order
        try:
            with asyncio.Runner(loop_factory=_event_loop) as runner:
                tell_parent(runner.run(measure(plan, requests)))
        except OSError as error:
            tell_parent({"error": f"{plan['host']}:{plan['port']} takes no connection: {error}"})


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
