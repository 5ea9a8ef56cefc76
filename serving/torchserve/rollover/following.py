"""A server that follows its store: when the alias `champion` means another release, it rolls over to it.

A thread looks at the alias twice a second; another keeps the server's state file (`core.releases.servers`) fresh. A
release that is refused is not tried again until the alias is written again. One whose files or embeddings are not
complete yet is tried until they are.
"""

import logging
import socket
import threading
from collections.abc import Callable
from os import getpid
from typing import Any

import msgspec

from core.releases.manifest import ManifestError, Release
from core.releases.model_store import CHAMPION, ModelStore
from core.releases.servers import Refused, ServerState, StateFile
from serving.torchserve.management import ManagementError
from serving.torchserve.rollover.rollover import Cancelled, NotYet, RolloverError, Site, check, retire, switch

_LOOK_SECONDS = 0.5
_BEAT_SECONDS = 2.0
_LOG = logging.getLogger(__name__)


class Follower:
    """Keeps a running server at the champion from `start` to `stop`."""

    def __init__(self, site: Site, serving: Release, *, keep_previous: bool = False) -> None:
        """`serving` is the release with which the server was started."""
        self._site = site
        self._keep = keep_previous
        self._cancelled = threading.Event()
        self._file = StateFile(site.store)
        self._lock = threading.Lock()
        self._reported = ""
        self._refused_writing: int | None = None  # which writing of the alias was refused
        self._serving = serving.manifest.version
        self._kept = {self._serving}
        self._settled = True  # only what is kept is registered
        self._state = ServerState(
            host=socket.gethostname(),
            pid=getpid(),
            inference=site.url,
            management=f"unix:{site.management.socket}",
            release=serving.manifest.title,
            digest=serving.digest,
        )
        self._threads = [
            threading.Thread(target=self._every, args=arguments, daemon=True)
            for arguments in ((self._look, _LOOK_SECONDS), (self._say, _BEAT_SECONDS))
        ]

    @property
    def state(self) -> ServerState:
        """What the server does, as its state file says."""
        return self._state

    def start(self) -> None:
        """Say that the server serves, and follow from now on."""
        self._say()
        for thread in self._threads:
            thread.start()

    def cancel(self) -> None:
        """Begin no further step; a call to TorchServe that is under way ends when that does."""
        self._cancelled.set()

    def stop(self) -> None:
        """End the threads and remove the state file; call it once TorchServe has ended."""
        self.cancel()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()
        self._file.remove()

    def _every(self, act: Callable[[], None], seconds: float) -> None:
        while not self._cancelled.wait(seconds):
            try:
                act()
                self._reported = ""
            except Cancelled:
                return
            except Exception as error:  # whatever it is, a server that stopped following would be worse
                if str(error) != self._reported and not self._cancelled.is_set():  # reported once, not twice a second
                    foreseen = isinstance(error, ManagementError | ManifestError | OSError)
                    _LOG.error("following %s: %s", self._site.store.home, error, exc_info=not foreseen)
                    self._reported = str(error)

    def _look(self) -> None:
        """Act if there is anything to do; until then TorchServe is not asked anything."""
        version, writing = _champion(self._site.store)
        if version is None or version == self._serving:
            self._settle()
        elif writing != self._refused_writing:
            self._roll(version, writing)

    def _settle(self) -> None:
        """The right release serves: forget what was refused, and end what a rollover left behind."""
        if not self._settled:
            if self._site.management.default() != self._serving:  # its rollover went wrong half-way
                self._site.management.set_default(self._serving)
            retire(self._site, self._kept, cancelled=self._cancelled)
            self._settled = True
        self._refused_writing = None
        if self._state.state != "serving" or self._state.refused is not None:
            self._change(state="serving", target=None, refused=None)

    def _roll(self, version: int, writing: int) -> None:
        try:
            release = check(self._site, version)
            self._change(state="rolling", target=version)
            switch(self._site, release, cancelled=self._cancelled)
        except RolloverError as error:
            self._settled = False  # some of it may still be registered
            self._refuse(Refused(version, str(error), final=not isinstance(error, NotYet)), writing)
            return
        _LOG.info("%s serves now, in place of %s", release.manifest.title, self._state.release)
        self._kept = {version, self._serving} if self._keep else {version}
        self._serving, self._settled = version, False
        self._change(release=release.manifest.title, digest=release.digest, refused=None)

    def _refuse(self, refused: Refused, writing: int) -> None:
        if refused != self._state.refused:
            _LOG.error("%s/%d is not served: %s", self._site.store.name, refused.version, refused.reason)
        self._refused_writing = writing if refused.final else None
        self._change(state="serving", target=None, refused=refused)

    def _change(self, **what: Any) -> None:
        with self._lock:
            self._state = msgspec.structs.replace(self._state, **what)
        self._say()

    def _say(self) -> None:
        with self._lock:
            self._file.write(self._state)


def _champion(store: ModelStore) -> tuple[int | None, int]:
    """The version that the alias means, and a number that changes each time the alias is written."""
    try:
        written = (store.home / "aliases" / CHAMPION).stat().st_mtime_ns  # first: if it changes now, we look again
    except FileNotFoundError:
        return None, 0
    return store.alias(CHAMPION), written
