"""How often what dies is started again: always, but for what dies again and again without having run for a while."""

import logging
import time
from collections import defaultdict

from serving.torchserve.settings import LaunchError

_MOST = 5  # deaths in succession
_HEALTHY_SECONDS = 10.0  # whoever ran so long did not die of its start
_PAUSE_SECONDS = 0.2  # before the second start in succession, doubled with each further one; the first is at once
_LOG = logging.getLogger(__name__)


class Restarts:
    """The deaths in quick succession, and since when what was started is ready."""

    def __init__(self) -> None:
        self._deaths: dict[str, int] = defaultdict(int)
        self._ready: dict[str, float] = {}

    def ready(self, what: str) -> None:
        """It was started, and answers."""
        self._ready[what] = time.monotonic()

    def note(self, what: str, why: str) -> None:
        """Something died: say why, and wait before it is started again; raises `LaunchError` if it died too often."""
        ready = self._ready.pop(what, None)
        if ready is not None and time.monotonic() - ready >= _HEALTHY_SECONDS:
            self._deaths[what] = 0
        self._deaths[what] += 1
        deaths = self._deaths[what]
        if deaths > _MOST:
            raise LaunchError(
                f"{what} died {deaths} times without having run for {_HEALTHY_SECONDS:.0f} s in between; last: {why}"
            )
        _LOG.error("%s; it is started again", why)
        if deaths > 1:
            time.sleep(_PAUSE_SECONDS * 2 ** (deaths - 2))
