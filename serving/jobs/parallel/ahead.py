"""Reading and decoding ahead: threads load the images of the next passes while the runtime works on the current one."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

_AHEAD = 2  # passes that are loaded while one runs
Entry = TypeVar("Entry")
Loaded = TypeVar("Loaded")


def loaded_ahead(
    passes: Iterable[Sequence[Entry]], load: Callable[[Entry], Loaded], threads: ThreadPoolExecutor, *, part: int
) -> Iterator[list[Loaded]]:
    """What `load` makes of each pass's entries, in order; a thread takes `part` entries at a time."""

    def load_all(entries: Sequence[Entry]) -> list[Loaded]:
        return [load(entry) for entry in entries]

    ahead: deque[list[Future[list[Loaded]]]] = deque()
    for entries in passes:
        parts = range(0, len(entries), part)
        ahead.append([threads.submit(load_all, entries[at : at + part]) for at in parts])
        if len(ahead) > _AHEAD:
            yield _joined(ahead.popleft())
    while ahead:
        yield _joined(ahead.popleft())


def _joined(parts: Sequence[Future[list[Loaded]]]) -> list[Loaded]:
    return [loaded for part in parts for loaded in part.result()]
