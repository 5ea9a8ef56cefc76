"""The worker processes of a command: started, given pieces of work one at a time, listened to, stopped.

Each has a pipe of its own, whose other end is in `serving.jobs.parallel.member`, and no lock is shared: a process that
is killed leaves nothing behind that another waits for.
"""

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from types import TracebackType
from typing import Generic, Self, TypeVar

from core.machine.held_signals import signals_held
from serving.jobs.parallel.member import Message
from serving.jobs.parallel.tasks import WorkError

Post = TypeVar("Post")


class Crew(Generic[Post]):
    """One worker process for each of `posts`. A context manager: running on entry, and none is left on exit."""

    def __init__(self, posts: Sequence[Post], target: Callable[[Post, Connection], None], *, again: str) -> None:
        """`target` is what a process does at its post; `again` says how to go on when one has died."""
        self._posts = posts
        self._target = target
        self._again = again
        self._workers: dict[Connection, SpawnProcess] = {}

    def __enter__(self) -> Self:
        try:
            with signals_held():
                for post in self._posts:
                    self._start(post)
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def work(self, pieces: Sequence[int]) -> Iterator[int]:
        """Have `pieces` done; yields now and then how many more images are. Raises `WorkError` if a worker fails."""
        waiting = iter(pieces)
        while self._workers:
            for connection in wait([*self._workers]):
                assert isinstance(connection, Connection)
                message = self._heard(connection)
                if message is None:
                    self._end(connection)
                elif message.kind == "failed":
                    raise WorkError(str(message.value))
                elif message.kind == "next":
                    self._hand(connection, next(waiting, None))
                else:
                    yield int(message.value)

    def _start(self, post: Post) -> None:
        ours, theirs = multiprocessing.Pipe()
        process = multiprocessing.get_context("spawn").Process(target=self._target, args=(post, theirs), daemon=True)
        process.start()
        theirs.close()  # so that ours ends when the process does
        self._workers[ours] = process

    def _heard(self, connection: Connection) -> Message | None:
        """What a worker says, or None if it has ended."""
        try:
            message: Message = connection.recv()
        except (EOFError, OSError):
            return None
        return message

    def _hand(self, connection: Connection, piece: int | None) -> None:
        try:
            connection.send(piece)
        except OSError:
            self._end(connection)

    def _end(self, connection: Connection) -> None:
        """A worker has ended; unless it was told that there is no more to do, that is an error."""
        process = self._workers.pop(connection)
        connection.close()
        process.join()
        if process.exitcode != 0:
            raise WorkError(f"worker process {process.pid} {_cause(process.exitcode)}; {self._again}")

    def _stop(self) -> None:
        """Nothing is lost by killing: what a worker writes exists whole or not at all."""
        with signals_held():  # an impatient second Ctrl-C would leave some of them
            for connection, process in self._workers.items():
                process.kill()
                process.join()
                connection.close()
            self._workers.clear()


def _cause(code: int | None) -> str:
    if code == -signal.SIGKILL:
        return "was killed by SIGKILL (out of memory? give fewer --processes)"
    return f"was killed by {signal.Signals(-code).name}" if code is not None and code < 0 else f"ended with code {code}"
