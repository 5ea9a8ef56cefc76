"""A process of a crew: asks the command for a piece of work, says how far it is, and how it ended.

Left out: the command's end of the talk (`serving.jobs.parallel.crew`), and what the work is.
"""

import logging
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Literal, NamedTuple

_LOG = logging.getLogger(__name__)


class Message(NamedTuple):
    """What a member says: it wants a piece of work, has done so many images, or has failed for a reason."""

    kind: Literal["next", "images", "failed"]
    value: int | str = 0


class Command:
    """The command that a member works for."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def next_piece(self) -> int | None:
        """The piece of work to do now; None if there is no more."""
        self._connection.send(Message("next"))
        piece: int | None = self._connection.recv()
        return piece

    def tell(self, images: int) -> None:
        """So many images more are done."""
        self._connection.send(Message("images", images))


def run_member(
    connection: Connection, work: Callable[[Command], None], *, told: tuple[type[Exception], ...], again: str
) -> None:
    """The process: ends when `work` does, when it fails, or when nobody listens any more.

    Errors that are `told` explain themselves; to any other, how to go on `again` is added.
    """
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    try:
        work(Command(connection))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        _LOG.warning("the command that started this process is gone: stopping")
    except told as error:
        connection.send(Message("failed", str(error)))
    except Exception as error:
        _LOG.exception("a worker failed")
        connection.send(Message("failed", f"a worker failed: {type(error).__name__}: {error}; {again}"))
