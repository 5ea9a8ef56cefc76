"""A process of a crew: it asks the foreman for pieces of work, and reports how far it is and how it ended.

The foreman is the process that started the crew (`serving.jobs.parallel.crew`), at the other end of a pipe.
"""

import logging
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Literal, NamedTuple

_LOG = logging.getLogger(__name__)


class Message(NamedTuple):
    """What a member says: it wants a piece of work, has finished some images, or has failed for a reason."""

    kind: Literal["next", "images", "failed"]
    value: int | str = 0


class Foreman:
    """A member's end of the pipe to the process that it works for."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def next_piece(self) -> int | None:
        """The piece of work to do now; None if there is no more."""
        self._connection.send(Message("next"))
        piece: int | None = self._connection.recv()
        return piece

    def report(self, images: int) -> None:
        """Report that this many more images are done."""
        self._connection.send(Message("images", images))


def run_member(
    connection: Connection, work: Callable[[Foreman], None], *, expected: tuple[type[Exception], ...], again: str
) -> None:
    """The life of the process: it ends when `work` does, when that fails, or when nobody listens any more.

    `expected` errors explain themselves; to any other, `again` is added, which says how to go on.
    """
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    try:
        work(Foreman(connection))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        _LOG.warning("the process that started this one is gone: stopping")
    except expected as error:
        connection.send(Message("failed", str(error)))
    except Exception as error:
        _LOG.exception("a worker failed")
        connection.send(Message("failed", f"a worker failed: {type(error).__name__}: {error}; {again}"))
