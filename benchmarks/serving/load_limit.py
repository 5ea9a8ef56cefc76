"""How much the load generator can do, so that nobody need believe that it is not what limits a server.

Closed loop against `benchmarks.serving.echo_server`, which does next to nothing, with requests and replies of real
sizes. On a machine with few cores the echo server takes one of them, and the generator's own limit is above what is
reached here; its CPU seconds per request hold in any case.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.serving.load import Closed, Target, run
from benchmarks.tools.child import Child

_CLIENTS = 64


@dataclass(frozen=True)
class Limit:
    """What the generator did: the bytes of a request and of a reply, how many a second, and its CPU time for one."""

    request_bytes: int
    reply_bytes: int
    per_second: float
    cpu_us_per_request: float


def measure(requests: Sequence[bytes], reply_bytes: int, *, seconds: float) -> Limit:
    """Send `requests` as fast as can be to a server that answers `reply_bytes` at once."""
    with Child("benchmarks.serving.echo_server") as server:
        server.tell({"body": reply_bytes})
        target = Target(server.hear()["port"], requests)
        found = run(target, Closed(_CLIENTS, seconds=seconds, warm_up=min(0.5, seconds)))
    size = sum(map(len, requests)) // len(requests)
    return Limit(size, reply_bytes, found.per_second, 1e6 * found.generator_cpu_seconds / max(1, found.requests))
