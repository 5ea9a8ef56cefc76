"""How often each key may ask: a token bucket that holds two seconds' worth, and at least one request.

A bucket is kept as the time at which it will be full again; one that is full needs no keeping.
"""

import math

from serving.protocol.messages import RequestError

_BURST_SECONDS = 2.0
_SWEEP_SECONDS = 60.0


class Rates:
    """The buckets of all keys by name. Times are monotonic, in seconds."""

    def __init__(self) -> None:
        self._full_at: dict[str, float] = {}
        self._next_sweep = 0.0

    def __len__(self) -> int:
        return len(self._full_at)

    def take(self, name: str, rate: float, now: float) -> None:
        """Count one request of a key that may make `rate` a second, > 0; raises `RequestError` 429 if it is too many.

        A request that is refused does not count.
        """
        if now >= self._next_sweep:
            self._sweep(now)
        full_at = max(now, self._full_at.get(name, now)) + 1 / rate
        too_early = full_at - now - max(_BURST_SECONDS, 1 / rate)
        if too_early > 1e-6:  # sums of floats
            seconds = max(1, math.ceil(too_early))
            raise RequestError(f"the key {name} may make {rate:g} requests a second", 429, retry_after=seconds)
        self._full_at[name] = full_at

    def _sweep(self, now: float) -> None:
        self._next_sweep = now + _SWEEP_SECONDS
        self._full_at = {name: full_at for name, full_at in self._full_at.items() if full_at > now}
