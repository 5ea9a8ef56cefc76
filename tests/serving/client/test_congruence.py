"""Both clients have the same methods, and give the same answers of the same real server."""

import asyncio
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from core.images.decode import open_upright
from serving.client import AsyncClient, Client, ServerError
from serving.torchserve.launch import Server
from tests.conftest import Chain

THEIRS = ("carry_out", "close")
PASSING = ("seq", "created", "updated", "started", "finished", "embedded", "stats")  # what tells when it was


def methods(kind: type) -> dict[str, Any]:
    return {name: value for name, value in vars(kind).items() if not name.startswith("_")}


def test_both_have_the_same_methods_with_the_same_words() -> None:
    assert methods(Client).keys() == methods(AsyncClient).keys()
    assert inspect.signature(Client) == inspect.signature(AsyncClient)
    for name, here in methods(Client).items():
        there = methods(AsyncClient)[name]
        assert inspect.signature(here).parameters == inspect.signature(there).parameters, name
        assert here.__name__ == there.__name__ == name
        assert here.__doc__ == there.__doc__, name


def calls(image: bytes, known: str, vector: list[float]) -> list[tuple[str, tuple[Any, ...], dict[str, Any]]]:
    """One call of each method, in an order that leaves the collection as it was."""
    example = {"positives": [known, {"image": image}], "negatives": [{"vector": vector}]}
    new = {"id": "new/ä b", "image": image, "label": "pet", "metadata": {"year": 2024}}
    return [
        ("describe", (), {}),
        ("embed", ([image] * 3,), {}),
        ("embed_once", ([image],), {}),
        ("classify", ([image, b"nothing"],), {"vote": True}),
        ("search", ([image],), {"ids": [known, "none"], "vectors": [vector], **example, "k": 3, "offset": 1}),
        ("upsert", ([new],), {}),
        ("update", ([{"id": "new/ä b", "label": None, "metadata": {"month": 5}}],), {}),
        ("get", (["new/ä b", "none"],), {}),
        ("picture", ("new/ä b",), {"thumbnail": True}),
        ("facets", (["label", "year"],), {"limit": 3}),
        ("delete", (["new/ä b", "none"],), {}),
        ("items", (), {"filter": {"label": "cat"}, "page": 10}),
        ("count", (), {"filter": {"label": {"in": ["cat", "dog"]}}}),
        ("sample", (5,), {"seed": 7}),
        ("stats", (), {"drift": True}),
        ("duplicates", (), {"min_score": 0.9, "page": 7}),
        ("snapshot", ("monday",), {}),
        ("snapshots", (), {}),
        ("restore", ("monday",), {"replace": True}),
        ("remove_snapshot", ("monday",), {}),
        ("get", (["none"],), {}),
        ("restore", ("..",), {}),
    ]


def plain(value: Any) -> Any:
    """A result without what differs from one time to the next, to be compared."""
    if isinstance(value, np.ndarray):
        return value.dtype.name, np.round(value, 4).tolist()
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items() if name not in PASSING}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return round(value, 4) if isinstance(value, float) else value


def here(url: str, wanted: list[Any]) -> list[Any]:
    found = []
    with Client(url) as client:
        for name, arguments, options in wanted:
            try:
                result = getattr(client, name)(*arguments, **options)
                found.append(list(result) if inspect.isgenerator(result) else result)
            except ServerError as error:
                found.append((str(error), error.status))
    return found


async def there(url: str, wanted: list[Any]) -> list[Any]:
    found: list[Any] = []
    async with AsyncClient(url) as client:
        for name, arguments, options in wanted:
            try:
                result = getattr(client, name)(*arguments, **options)
                found.append([one async for one in result] if inspect.isasyncgen(result) else await result)
            except ServerError as error:
                found.append((str(error), error.status))
    return found


def test_both_give_the_same_answers(server: Server, chain: Chain) -> None:
    image = chain.test_files()[0]
    known, vectors = chain.stored()
    wanted = calls(image, known[0], vectors[0].tolist())
    assert {name for name, _, _ in wanted} == methods(Client).keys() - set(THEIRS)
    first, second = here(server.url, wanted), asyncio.run(there(server.url, wanted))
    for (name, _, _), one, other in zip(wanted, first, second, strict=True):
        if name in ("describe", "stats", "snapshots"):  # they tell of times and of what was asked before
            assert one.keys() == other.keys()
        elif name in ("snapshot", "restore") and isinstance(one, dict):
            assert {**one, "id": 0, "started": 0, "finished": 0} == {**other, "id": 0, "started": 0, "finished": 0}
        else:
            assert plain(one) == plain(other), name
    results = dict(zip([name for name, _, _ in wanted[:-2]], first, strict=False))
    np.testing.assert_allclose(np.linalg.norm(results["embed"], axis=1), 1, atol=1e-5)
    assert [one.get("error", {}).get("status") for one in results["classify"]] == [None, 415]
    assert [len(one.get("neighbours", ())) for one in results["search"]] == [3, 3, 0, 3, 3]
    assert results["get"][0]["metadata"] == {"year": 2024, "month": 5}
    assert results["picture"][:2] == b"\xff\xd8"
    assert (results["delete"]["deleted"], results["delete"]["missing"]) == (1, ["none"])
    assert results["snapshot"]["items"] == results["restore"]["items"] == len(known)
    assert [status for _, status in first[-2:]] == [404, 400]


def test_every_form_of_an_image_gives_the_same_embedding(client: Client, chain: Chain, tmp_path: Path) -> None:
    picture = open_upright(chain.test_files()[0])
    picture.save(path := tmp_path / "one.png")
    with path.open("rb") as file, Image.open(path) as opened:
        forms: list[Any] = [path, str(path), path.read_bytes(), file, opened, picture, np.asarray(picture)]
        found = client.embed(forms)
    np.testing.assert_allclose(found, np.repeat(found[:1], len(forms), axis=0), atol=1e-6)
    assert client.search([np.asarray(picture)], positives=[{"image": opened}], k=1)


def test_a_filter_of_any_length_is_sent(client: Client) -> None:
    long = {"label": {"in": ["cat", *(f"{'no such label':<900} {number}" for number in range(90))]}}
    assert {item["label"] for item in client.items(filter=long)} <= {"cat"}


def test_another_collection_is_not_there(server: Server) -> None:
    with Client(server.url, collection="a/../b") as client, pytest.raises(ServerError, match=r"'a/\.\./b'") as refused:
        client.count()
    assert refused.value.status == 404


@pytest.mark.parametrize("make", [Client, AsyncClient])
def test_what_help_shows(make: Callable[..., Any]) -> None:
    assert str(inspect.signature(make().count)).startswith("(*, filter: ")
    assert make().count.__doc__ == "How many items a filter matches."
