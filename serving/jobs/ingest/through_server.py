"""Send every image of a folder or zip to a server's collection.

Each group of images is first asked for by id: those that are stored already, with this very file and label and an
embedding by the release served, are not sent. So a second run sends what is missing, and a killed one goes on. Several
connections at a time. Items whose files are no longer there stay; `simclr delete` removes them.
"""

import hashlib
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from tqdm import tqdm

from core.images.folders import UnreadableFile
from serving.client.client import Client, NewItem, ServerError
from serving.jobs.ingest.ingestion import Ingestion
from serving.jobs.ingest.sources import Images, Listed, in_batches

CONNECTIONS = 4
_GROUP = 16  # images
_GROUP_BYTES = 32 << 20  # of one request; a server takes twice that
_REQUESTS_AHEAD = 2  # for each connection


def ingest_images(client: Client, images: Images, *, connections: int = CONNECTIONS) -> Ingestion:
    """Have the server's collection hold the images, with a progress bar. Raises `ServerError` if it can't go on."""
    total = Ingestion()
    with (
        ThreadPoolExecutor(connections, thread_name_prefix="send") as pool,
        tqdm(total=len(images.listed), desc="ingest", unit="image") as bar,
    ):
        try:
            for size, done in _groups(pool, client, images, ahead=_REQUESTS_AHEAD * connections):
                total.stored += done.stored
                total.unchanged += done.unchanged
                total.left_out |= done.left_out
                bar.update(size)
        finally:
            pool.shutdown(cancel_futures=True)
    return total


def _groups(pool: ThreadPoolExecutor, client: Client, images: Images, *, ahead: int) -> Iterator[tuple[int, Ingestion]]:
    waiting: deque[tuple[int, Future[Ingestion]]] = deque()
    for batch in in_batches(images.listed, _GROUP):
        waiting.append((len(batch), pool.submit(_ingest_group, client, images, batch)))
        if len(waiting) > ahead:
            size, future = waiting.popleft()
            yield size, future.result()
    for size, future in waiting:
        yield size, future.result()


def _ingest_group(client: Client, images: Images, batch: Sequence[Listed]) -> Ingestion:
    done = Ingestion()
    read: dict[str, bytes] = {}
    for listed in batch:
        try:
            read[listed.id] = images.read(listed)
        except (UnreadableFile, ValueError) as error:  # ValueError: the name can't be a path
            done.left_out[listed.id] = f"can't be read: {error}"
    readable = [listed for listed in batch if listed.id in read]
    stored = _get(client, [listed.id for listed in readable])
    fresh: list[NewItem] = []
    for listed, there in zip(readable, stored, strict=True):
        digest = hashlib.sha256(read[listed.id]).hexdigest()
        if there.get("embedded") and (there["sha256"], there["label"]) == (digest, listed.label):
            done.unchanged += 1
        else:
            metadata = there.get("metadata", {})  # what was given elsewhere stays
            fresh.append({"id": listed.id, "image": read[listed.id], "label": listed.label, "metadata": metadata})
    for part in _within_limits(fresh):
        _send(client, part, done)
    return done


def _get(client: Client, ids: Sequence[str]) -> list[dict[str, Any]]:
    if not ids:
        return []
    try:
        return client.get(ids)
    except ServerError as error:
        if error.status != 404:  # of one id alone that is the whole reply
            raise
        return [{} for _ in ids]


def _send(client: Client, items: Sequence[NewItem], done: Ingestion) -> None:
    """Upsert them; if a request is refused as a whole, item by item, so that only its cause is left out."""
    try:
        results = client.upsert(items)["results"]
    except ServerError as error:
        if error.status not in (400, 413, 415, 422):
            raise
        if len(items) > 1:
            for item in items:
                _send(client, [item], done)
        else:
            done.left_out[items[0]["id"]] = str(error)
        return
    for item, result in zip(items, results, strict=True):
        if "error" in result:
            done.left_out[item["id"]] = f"{result['error']['status']}: {result['error']['message']}"
        else:
            done.stored += 1


def _within_limits(items: Sequence[NewItem]) -> Iterator[list[NewItem]]:
    part: list[NewItem] = []
    size = 0
    for item in items:
        assert isinstance(item["image"], bytes)
        if part and size + len(item["image"]) > _GROUP_BYTES:
            yield part
            part, size = [], 0
        part.append(item)
        size += len(item["image"])
    if part:
        yield part
