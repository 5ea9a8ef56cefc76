"""The Python client, in two forms that have the same methods.

    with Client("http://127.0.0.1:8080") as client:
        client.upsert([{"id": "cat", "image": "cat.jpg", "label": "pet", "metadata": {"year": 2024}}])
        client.search(["dog.jpg"], k=5, filter={"label": "pet"})

    async with AsyncClient("http://127.0.0.1:8080") as client:
        await client.search(["dog.jpg"], k=5)
        async for item in client.items():
            print(item["id"])

The methods are `serving.client.operations`; here are the two ways to carry them out.
"""

import asyncio
import time
from types import TracebackType
from typing import Self

import httpx

import serving.client.operations as operations  # noqa: PLR0402  (the package itself names this module)
from serving.client.calls import Call, Result, Steps
from serving.client.connection import Connection, Outcome, advance
from serving.client.errors import ServerError
from serving.client.methods import awaited, awaited_pages, now, now_pages
from serving.client.operations import ItemChange, NewItem
from serving.client.patience import PATIENCE
from serving.protocol.agreed import DEFAULT_COLLECTION, DEFAULT_URL

__all__ = ["AsyncClient", "Client", "ItemChange", "NewItem", "ServerError"]


class Client:
    """Talks to one server, and waits for each answer. May be shared among threads.

    Images are paths, bytes of image files, open binary files, Pillow images, or arrays uint8 (H, W, 3) in RGB.
    `api_key` is for a server that needs one; by default it is what the environment has as SIMCLR_API_KEY. `timeout` is
    in seconds, for a server that says nothing.

    A server that is busy (503, 429) is asked again after the pause that it names, with up to `patience` seconds of
    pauses for a request; 0 fails at once. Reads, and writes that change nothing when made twice, are sent again so;
    reads also when a server that answered before loses the connection.

    Methods raise `ServerError` for a request that is refused as a whole. Where one of several images or ids fails, its
    place in the results has an `error`.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        api_key: str | None = None,
        collection: str = DEFAULT_COLLECTION,
        timeout: float = 60.0,
        patience: float = PATIENCE,
    ) -> None:
        self._connection = Connection(url, api_key, collection, timeout, patience)
        self._http = self._connection.open(httpx.Client)

    embed = now(operations.embed)
    embed_once = now(operations.embed_once)
    classify = now(operations.classify)
    search = now(operations.search)
    describe = now(operations.describe)

    upsert = now(operations.upsert)
    update = now(operations.update)
    delete = now(operations.delete)
    get = now(operations.get)
    picture = now(operations.picture)
    items = now_pages(operations.items)

    count = now(operations.count)
    facets = now(operations.facets)
    sample = now(operations.sample)
    stats = now(operations.stats)
    duplicates = now_pages(operations.duplicates)

    snapshots = now(operations.snapshots)
    snapshot = now(operations.snapshot)
    restore = now(operations.restore)
    remove_snapshot = now(operations.remove_snapshot)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def carry_out(self, steps: Steps[Result]) -> Result:
        """Make the calls of an operation, one after the other; returns its result."""
        doings = self._connection.exchange(steps)
        outcome: Outcome = None
        while True:
            doing, result = advance(doings, outcome)
            if doing is None:
                return result  # type: ignore[return-value]
            outcome = self._do(doing)

    def _do(self, doing: Call | float) -> Outcome:
        if isinstance(doing, float):
            time.sleep(doing)
            return None
        try:
            return self._http.request(**self._connection.request(doing))
        except httpx.TransportError as error:
            return error


class AsyncClient:
    """`Client` for asyncio: the same methods, to be awaited; `items` and `duplicates` are for `async for`.

    Files are read, and pictures made into files, in a thread. May be shared among the tasks of one event loop.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        api_key: str | None = None,
        collection: str = DEFAULT_COLLECTION,
        timeout: float = 60.0,
        patience: float = PATIENCE,
    ) -> None:
        self._connection = Connection(url, api_key, collection, timeout, patience)
        self._http = self._connection.open(httpx.AsyncClient)

    embed = awaited(operations.embed)
    embed_once = awaited(operations.embed_once)
    classify = awaited(operations.classify)
    search = awaited(operations.search)
    describe = awaited(operations.describe)

    upsert = awaited(operations.upsert)
    update = awaited(operations.update)
    delete = awaited(operations.delete)
    get = awaited(operations.get)
    picture = awaited(operations.picture)
    items = awaited_pages(operations.items)

    count = awaited(operations.count)
    facets = awaited(operations.facets)
    sample = awaited(operations.sample)
    stats = awaited(operations.stats)
    duplicates = awaited_pages(operations.duplicates)

    snapshots = awaited(operations.snapshots)
    snapshot = awaited(operations.snapshot)
    restore = awaited(operations.restore)
    remove_snapshot = awaited(operations.remove_snapshot)

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def carry_out(self, steps: Steps[Result]) -> Result:
        """Make the calls of an operation, one after the other; returns its result."""
        doings = self._connection.exchange(steps)
        outcome: Outcome = None
        while True:
            doing, result = await asyncio.to_thread(advance, doings, outcome)
            if doing is None:
                return result  # type: ignore[return-value]
            outcome = await self._do(doing)

    async def _do(self, doing: Call | float) -> Outcome:
        if isinstance(doing, float):
            await asyncio.sleep(doing)
            return None
        try:
            return await self._http.request(**self._connection.request(doing))
        except httpx.TransportError as error:
            return error
