"""How far the answers of a finished quickstart are from their oracles, and what 64 clients get at once.

`python -m benchmarks.serving.agreement --name digits`   (after `scripts/quickstart --once`)

Loss and gradient against Algorithm 1 as a naive loop in float64; exported files against the eager graph; neighbours
through HTTP against brute force over the embeddings in SQLite; a mix of good and broken images from 64 clients.
Prints a table and a last line of JSON.
"""

import argparse
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.tools.command import Figures, benchmark
from benchmarks.training.algorithm_1 import algorithm_1
from core.command_line.command import main
from core.releases.manifest import Release
from serving.client.client import Client
from serving.collection.catalogue.interface import Catalogue
from serving.collection.catalogue.opening import open_catalogue
from serving.torchserve.launch import Server
from serving.torchserve.settings import Settings
from training.data.dataset import Dataset
from training.model.nt_xent import nt_xent

CLIENTS = 64
REQUESTS = 1_280


def loss_errors() -> dict[str, float]:
    """Largest difference of loss and of gradient from the naive loop, over batches, widths and temperatures."""
    worst = {"nt_xent_loss": 0.0, "nt_xent_gradient": 0.0}
    generator = torch.Generator().manual_seed(0)
    for count, width, temperature in ((2, 8, 0.5), (16, 32, 0.1), (64, 128, 0.5), (64, 128, 0.07)):
        pair = [torch.randn(count, width, generator=generator) for _ in range(2)]
        ours = [part.clone().requires_grad_() for part in pair]
        exact = [part.double().requires_grad_() for part in pair]
        losses = nt_xent(torch.stack(ours), temperature), algorithm_1(exact[0], exact[1], temperature)
        for loss in losses:
            loss.backward()
        worst["nt_xent_loss"] = max(worst["nt_xent_loss"], abs(losses[0].item() - losses[1].item()))
        for one, two in zip(ours, exact, strict=True):
            assert one.grad is not None
            assert two.grad is not None
            worst["nt_xent_gradient"] = max(worst["nt_xent_gradient"], (one.grad - two.grad).abs().max().item())
    return worst


def search_errors(client: Client, catalogue: Catalogue, release: str, queries: Sequence[bytes]) -> dict[str, Any]:
    """Top-10 neighbours of every query through HTTP against float64 brute force over the stored embeddings."""
    rows, vectors = catalogue.vectors.at(catalogue.vectors.census(release).rows, release)
    items = catalogue.items.at(rows.tolist())
    ids = [items[row].id for row in rows.tolist()]
    stored = vectors.astype(np.float64)
    difference, same, ties = 0.0, 0, 0
    for at in range(0, len(queries), 32):
        part = queries[at : at + 32]
        embedded = client.embed(part).astype(np.float64)
        for query, result in zip(embedded, client.search(part, k=10), strict=True):
            scores = stored @ query
            best = np.argsort(-scores, kind="stable")[:10]
            found = result["neighbours"]
            difference = max(difference, np.abs(np.array([near["score"] for near in found]) - scores[best]).max())
            exact = [near["id"] for near in found] == [ids[row] for row in best]
            same += exact
            ties += not exact and {near["id"] for near in found} == {ids[row] for row in best}
    return {
        "search_queries": len(queries),
        "search_same_ids": same,
        "search_same_ids_but_for_order_of_ties": ties,
        "search_score": difference,
    }


def load_outcome(server: Server, images: Sequence[bytes], alone: NDArray[np.float32]) -> dict[str, Any]:
    """1,280 requests from 64 clients, a third of them broken: statuses, and embeddings against those got alone."""
    address = f"{server.url}/models/{server.model}/invoke?op=embed"
    spoilt = (lambda good: good[: len(good) // 2], lambda good: b"no image", lambda good: b"")

    def ask(number: int) -> tuple[bool, httpx.Response, int]:
        row = number % len(images)
        broken = number % 3 == 2
        body = spoilt[number // 3 % 3](images[row]) if broken else images[row]
        return broken, http.put(address, content=body, headers={"content-type": "image/png"}), row

    limits = httpx.Limits(max_connections=CLIENTS)
    with httpx.Client(limits=limits, timeout=60, trust_env=False) as http, ThreadPoolExecutor(CLIENTS) as pool:
        replies = list(pool.map(ask, range(REQUESTS)))
    good = [(reply, row) for broken, reply, row in replies if not broken]
    differences = [
        np.abs(np.array(reply.json()["results"][0]["embedding"], np.float32) - alone[row]).max()
        for reply, row in good
        if reply.status_code == 200
    ]
    return {
        "load_good": len(good),
        "load_good_200": len(differences),
        "load_broken": REQUESTS - len(good),
        "load_broken_4xx": sum(400 <= reply.status_code < 500 for broken, reply, _ in replies if broken),
        "load_statuses": dict(sorted(Counter(reply.status_code for _, reply, _ in replies).items())),
        "load_embedding": float(max(differences)),
    }


def measure(name: str) -> dict[str, Any]:
    """Every figure for the quickstart called `name`."""
    home = Path("runs") / name
    published = json.loads((home / "release.json").read_text())
    release = Release(published["release"])
    data = Dataset.load(home / "data")
    queries = [data.read_item(data.ids[row]) for row in data.rows("test")]
    figures: dict[str, Any] = loss_errors()
    for form, parity in release.manifest.parity.items():
        figures |= {
            f"{form}_least_cosine": parity["cosine_least"],
            f"{form}_difference": parity["embedding_difference"],
        }
    with tempfile.TemporaryDirectory() as logs:
        settings = Settings(
            Path(published["archive"]), collection=home / "collection", port=0, log=Path(logs, "torchserve.log")
        )
        with Server(settings) as server, Client(server.url) as client:
            figures |= search_errors(client, open_catalogue(home / "collection"), release.digest, queries)
            alone = np.concatenate([client.embed([query]) for query in queries[:60]])
            figures |= load_outcome(server, queries[:60], alone)
    return figures


def _measure(options: argparse.Namespace) -> Figures:
    figures = measure(options.name)
    for name, value in figures.items():
        print(f"{name:<40} {value:.3g}" if isinstance(value, float) and value < 0.9 else f"{name:<40} {value}")
    return figures


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--name", default="digits", help="the quickstart's name (default: %(default)s)")


COMMAND = benchmark("benchmarks.serving.agreement", __doc__, _add_arguments, _measure)


if __name__ == "__main__":
    sys.exit(main(COMMAND))
