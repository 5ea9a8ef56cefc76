"""How often what dies is started again: always, but for what dies again and again."""

import logging
import time
from collections import defaultdict

from serving.torchserve.settings import LaunchError

_MOST, _SECONDS = 5, 300.0
_PAUSE_SECONDS = 0.2  # after the first death, doubled with each further one
_LOG = logging.getLogger(__name__)


class Restarts:
    """The deaths of the last minutes."""

    def __init__(self) -> None:
        self._deaths: dict[str, list[float]] = defaultdict(list)

    def note(self, what: str, why: str) -> None:
        """Something died: say why, and wait before it is started again; raises `LaunchError` if it died too often."""
        now = time.monotonic()
        recent = [moment for moment in self._deaths[what] if now - moment < _SECONDS]
        self._deaths[what] = [*recent, now]
        if len(recent) >= _MOST:
            raise LaunchError(f"{what} died {len(recent) + 1} times within {_SECONDS / 60:.0f} minutes; last: {why}")
        _LOG.error("%s; it is started again", why)
        time.sleep(_PAUSE_SECONDS * 2 ** len(recent))
