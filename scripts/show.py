"""What the quickstart shows at its end: answers in words, a contact sheet, and commands to go on with."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.images.decode import decode
from serving.client.client import Client
from serving.torchserve.launch import Server
from training.data.dataset import Dataset
from training.measures.chart_files import Row, contact_sheet

NEIGHBOURS = 5


@dataclass(frozen=True)
class Shown:
    """One query image and what the server said of it; `prediction` is None where there is no probe."""

    id: str
    file: Path
    embedding: NDArray[np.float32]
    prediction: dict[str, Any] | None
    neighbours: list[dict[str, Any]]


def ask(client: Client, data: Dataset, folder: Path, *, count: int) -> list[Shown]:
    """Ask about `count` test images, spread over the split; their files stay in `folder`."""
    files = _query_files(data, folder, count)
    about = client.describe()
    embeddings = client.embed(list(files.values()))
    found = client.search(list(files.values()), k=NEIGHBOURS + 1)  # the collection has the query itself as well
    labelled = about["labels"] is not None
    predictions: list[Any] = client.classify(list(files.values())) if labelled else [None] * len(files)
    return [
        Shown(name, file, embedding, prediction, _others(result["neighbours"], name))
        for (name, file), embedding, prediction, result in zip(
            files.items(), embeddings, predictions, found, strict=True
        )
    ]


def print_answers(shown: list[Shown]) -> None:
    """Print embedding, prediction and neighbours of each query."""
    for one in shown:
        first = " ".join(f"{number:+.4f}" for number in one.embedding[:5])
        print(f"\n{one.id}")
        print(f"  embedding   {len(one.embedding)} numbers: {first} ...")
        if one.prediction is not None:
            print(f"  prediction  {one.prediction['label']} ({one.prediction['probability']:.1%})")
        for title, neighbour in zip(["neighbours", *[""] * NEIGHBOURS], one.neighbours, strict=False):
            print(f"  {title:<10}  {neighbour['score']:.4f}  {neighbour['id']}")


def save_contact_sheet(shown: list[Shown], data: Dataset, path: Path) -> Path:
    """One row for each query: the picture, then its neighbours with their scores."""
    size = max(data.image_size, 32)
    rows: list[Row] = [
        (
            decode(data.read_item(one.id), size),
            _caption(one),
            [(decode(data.read_item(near["id"]), size), _near_caption(near)) for near in one.neighbours],
        )
        for one in shown
    ]
    contact_sheet(rows, path)
    return path


def print_questions(server: Server, shown: list[Shown]) -> None:
    """Commands that ask the same from a second terminal."""
    address = f"{server.url}/v1"
    file, near = shlex.quote(str(shown[0].file)), shown[0].neighbours[0]["id"]
    print("\nIn a second terminal:")
    print(f"  .venv/bin/simclr search {file} -k 5 --url {server.url}")
    print(f"  curl {address}/describe")
    print(f"  curl {address}/embed -F image=@{file}")
    if shown[0].prediction is not None:
        print(f"  curl {address}/classify -F image=@{file}")
    print(f"  curl {address}/search -F image=@{file} -F k=5")
    print(f"  curl {address}/search -F {shlex.quote('id=' + near)} -F k=5")


def print_what_next(serve_again: str) -> None:
    """Where to go from here; `serve_again` is a `simclr` command."""
    print("\nNext:")
    print(f"  .venv/bin/simclr {serve_again}    # serve this again")
    print("  scripts/quickstart --images ~/photographs    # the same with your own images: a folder or a zip")
    print("  .venv/bin/simclr --help    # every command", flush=True)


def _caption(one: Shown) -> str:
    if one.prediction is None:
        return one.id
    return f"{one.id}\n{one.prediction['label']} ({one.prediction['probability']:.0%})"


def _others(neighbours: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    """The nearest neighbours of an item but itself."""
    return [neighbour for neighbour in neighbours if neighbour["id"] != name][:NEIGHBOURS]


def _near_caption(neighbour: dict[str, Any]) -> str:
    return f"{neighbour['label'] or ''} {neighbour['score']:.3f}".strip()


def _query_files(data: Dataset, folder: Path, count: int) -> dict[str, Path]:
    """Copy `count` files of the test split out of their folder or zip: id to file."""
    rows = data.rows("test")
    chosen = rows[np.unique(np.linspace(0, len(rows) - 1, count).round().astype(int))]
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for number, row in enumerate(chosen, start=1):
        name = data.ids[row]
        files[name] = (folder / f"query-{number}{Path(name).suffix}").resolve()
        files[name].write_bytes(data.read_item(name))
    return files
