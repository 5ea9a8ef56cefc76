"""The worker processes of a bulk command: started, given shards one at a time, listened to, stopped.

Each has a pipe of its own, and no lock is shared: a process that is killed leaves nothing behind that another waits
for. Left out: what a worker does (`serving.bulk.worker`).
"""

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from types import TracebackType
from typing import Any, Self

from serving.bulk.errors import RESUME, BulkError
from serving.bulk.worker import Message, work

Place = Any  # where a worker works and with what, as its target wants it: `serving.bulk.worker.Post`
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Crew:
    """One worker process for each of `posts`. A context manager: running on entry, and none is left on exit."""

    def __init__(self, posts: Sequence[Place], target: Callable[[Place, Connection], None] = work) -> None:
        """`target` is what a process does: by default, embed the shards of a bulk job."""
        self._posts = posts
        self._target = target
        self._workers: dict[Connection, SpawnProcess] = {}

    def __enter__(self) -> Self:
        try:
            with _signals_held():
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

    def work(self, shards: Sequence[int]) -> Iterator[int]:
        """Have `shards` done; yields how many images were, now and then. Raises `BulkError` if a worker fails."""
        waiting = iter(shards)
        while self._workers:
            for connection in wait([*self._workers]):
                assert isinstance(connection, Connection)
                message = self._heard(connection)
                if message is None:
                    self._end(connection)
                elif message.kind == "failed":
                    raise BulkError(str(message.value))
                elif message.kind == "next":
                    self._hand(connection, next(waiting, None))
                else:
                    yield int(message.value)

    def _start(self, post: Place) -> None:
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

    def _hand(self, connection: Connection, shard: int | None) -> None:
        try:
            connection.send(shard)
        except OSError:
            self._end(connection)

    def _end(self, connection: Connection) -> None:
        """A worker has ended: well, if it was told that there is no more to do."""
        process = self._workers.pop(connection)
        connection.close()
        process.join()
        if process.exitcode != 0:
            raise BulkError(f"worker process {process.pid} {_cause(process.exitcode)}; {RESUME}")

    def _stop(self) -> None:
        """Nothing is lost by killing: a file is there whole or not at all."""
        with _signals_held():  # an impatient second Ctrl-C would leave some of them
            for connection, process in self._workers.items():
                process.kill()
                process.join()
                connection.close()
            self._workers.clear()


def _cause(code: int | None) -> str:
    if code == -signal.SIGKILL:
        return "was killed by SIGKILL (out of memory? give fewer --processes or a smaller --batch)"
    return f"was killed by {signal.Signals(-code).name}" if code is not None and code < 0 else f"ended with code {code}"


@contextmanager
def _signals_held() -> Iterator[None]:
    """This process gets these signals after the block, and processes that are started in it never get them.

    Ctrl-C and schedulers reach every process of a group; only this one is to react, and stop the others.
    """
    resource_tracker.ensure_running()  # multiprocessing would start it in the block, and unblock the signals
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
