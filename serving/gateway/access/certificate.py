"""The certificate for https, read again when it was renewed."""

import asyncio
import logging
import os
import ssl

_SECONDS = 1.0  # between two looks at the files

logger = logging.getLogger(__name__)


class Certificate:
    """A certificate chain and its private key, PEM files, and the `context` in which connections use them.

    Raises ValueError if they can't be used.
    """

    def __init__(self, chain: str, key: str) -> None:
        self._files = (chain, key)
        self._seen = self._look()
        self.context = self._loaded()

    def refresh(self) -> None:
        """Use the files for new connections if they have changed; to be called every second or so.

        While only one of the two is renewed, or if they break, the old certificate stays.
        """
        seen = self._look()
        if seen == self._seen:
            return
        self._seen = seen
        try:
            self._loaded()  # apart, so that a bad pair leaves the context as it was
        except ValueError as error:
            logger.error("%s; the certificate from before stays", error)
            return
        self.context.load_cert_chain(*self._files)
        logger.info("read the certificate %s again", self._files[0])

    async def keep_fresh(self) -> None:
        """Refresh it every second, until canceled."""
        while True:
            await asyncio.sleep(_SECONDS)
            self.refresh()

    def _loaded(self) -> ssl.SSLContext:
        chain, key = self._files
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_cert_chain(chain, key, password=_no_password)
        except OSError as error:  # SSLError is one
            raise ValueError(f"the certificate {chain} can't be used with the key {key}: {error}") from error
        return context

    def _look(self) -> tuple[tuple[int, int] | None, ...]:
        return tuple(map(_state, self._files))


def _no_password() -> str:
    """Asked for by a key that is encrypted, which would otherwise ask at the terminal."""
    raise ValueError("a private key must not be encrypted, as nobody is there to type its password")


def _state(path: str) -> tuple[int, int] | None:
    try:
        there = os.stat(path)
    except OSError:
        return None
    return there.st_ino, there.st_mtime_ns
