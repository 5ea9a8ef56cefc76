"""Keeps a worker's view of the collection young, and has it compacted when enough has changed.

A thread looks once a second, even when no requests come, so that an idle worker lets go of old bases and its next
search has little to catch up with. It also embeds what waits in the collection's space; while the space is still
filling, it does so without a pause until it is complete. A compaction runs in a process of its own, which takes none of
the worker's memory and locks; if several workers want one, one gets it. When it is due, and what it does, is in
`serving.collection.index.faiss.compaction`.
"""

import logging
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import serving
from serving.collection.errors import CollectionError
from serving.collection.index.faiss.compaction import Policy, clear, under_way
from serving.operations.opened import OpenCollection

EVERY_SECONDS = 1.0
PAUSE_AFTER_FAILURE = 60.0
_CODE = Path(serving.__file__).parents[1]
_LOG = logging.getLogger(__name__)


class Keeper:
    """The thread of one collection; it ends with the process, or by `stop`."""

    def __init__(self, collection: OpenCollection, policy: Policy | None = None) -> None:
        self._collection = collection
        self._policy = policy or Policy()
        self._stop = threading.Event()
        self._compaction: subprocess.Popen[bytes] | None = None
        self._not_before = 0.0
        self._thread = threading.Thread(target=self._run, name="keep-collection", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread, and the compaction if one runs: the base before it then stays in use."""
        self._stop.set()
        self._thread.join()
        if self._compaction is not None:
            self._compaction.kill()
            self._compaction.wait()

    def _run(self) -> None:
        logged, more = "", False
        while not self._stop.wait(0 if more else EVERY_SECONDS):
            more = False
            try:
                self._look()
                more = self._catch_up()
                logged = ""
            except CollectionError as error:  # logged once, not every second
                if str(error) != logged:
                    logged = str(error)
                    _LOG.error("the collection can't be kept up to date: %s", error)

    def _look(self) -> None:
        collection = self._collection
        before = collection.index.base
        collection.refresh()
        if collection.index.base != before:
            clear(collection.catalogue)  # this worker has just let go of a base
        if self._running() or time.monotonic() < self._not_before:
            return
        up_to_date = collection.catalogue.bases.get(collection.release) == collection.index.base
        if up_to_date and self._due() and not under_way(collection.catalogue.folder):
            self._compaction = start_compaction(collection)

    def _catch_up(self) -> bool:
        """Embed what waits, for about a second; returns whether there is more."""
        catching_up = self._collection.catching_up
        return catching_up is not None and catching_up.in_background(EVERY_SECONDS)

    def _due(self) -> bool:
        return self._policy.due(self._collection.index.sizes)

    def _running(self) -> bool:
        if self._compaction is None or (code := self._compaction.poll()) is None:
            return self._compaction is not None
        self._compaction = None
        if code != 0:
            _LOG.error("compaction failed with code %d; the next try is in %.0f s", code, PAUSE_AFTER_FAILURE)
            self._not_before = time.monotonic() + PAUSE_AFTER_FAILURE
        return False


def start_compaction(collection: OpenCollection) -> "subprocess.Popen[bytes]":
    """Compact in another process, which finds our code where this one did."""
    command = [
        sys.executable,
        "-m",
        "serving.collection.commands.compact",
        "--collection",
        str(collection.catalogue.folder),
    ]
    return subprocess.Popen(
        [*command, "--release", collection.release, "--nice"],
        env={**os.environ, "PYTHONPATH": str(_CODE)},
        stdin=subprocess.DEVNULL,
    )
