"""A release as it embeds the sample here: with the file that a server on this machine would run."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from core.releases.manifest import FORMATS, Release
from export.comparison.pixels import Reader, reader_for
from export.comparison.sample import Rows, Sample
from serving.inference.backends import Outputs
from serving.inference.choice import Choice, choose
from serving.inference.runtime import Runtime, images_of_pass, open_runtime
from training.data.dataset import Dataset
from training.model.views import random_views, views_generator
from training.recipe.config import ViewsConfig

Embeddings = NDArray[np.float32]


@dataclass(frozen=True)
class ComparedEmbeddings:
    """Unit-norm embeddings (N, D) of each kind of image; the queries with the release's own logits, if it has any.

    `views` are two random views of each image of `signals`, (2, M, D).
    """

    gallery: Embeddings
    validation: Embeddings
    queries: Outputs
    views: NDArray[np.float32]


@dataclass(frozen=True)
class Contender:
    """A release, and the one of its files that runs here."""

    release: Release
    data: Dataset

    @cached_property
    def choice(self) -> Choice:
        """Which file runs here, and why."""
        return choose(self.release)

    @cached_property
    def runtime(self) -> Runtime:
        """The file, opened once."""
        return self.opened()

    def opened(self) -> Runtime:
        """The file, opened again."""
        return open_runtime(self.release.file(FORMATS[self.choice.form]), device=self.choice.device)

    @cached_property
    def read(self) -> Reader:
        """Reads rows as pixels of the size that the release takes."""
        return reader_for(self.data, self.release.manifest.input.size)

    @property
    def bytes(self) -> int:
        """The size of the file that runs here."""
        return self.release.manifest.files[FORMATS[self.choice.form]].bytes

    def embed(self, rows: Rows, description: str) -> Outputs:
        """Embed rows, a pass at a time, so that pixels never fill the memory."""
        width = images_of_pass(self.release.manifest.input.size, gpu=self.choice.device == "cuda")
        starts = range(0, len(rows), width)
        parts = [
            self.runtime(self.read(rows[at : at + width])) for at in tqdm(starts, desc=description, unit=" passes")
        ]
        return self._joined(parts)

    def embed_views(self, rows: Rows, views: ViewsConfig) -> NDArray[np.float32]:
        """The embeddings of two views of each row, (2, M, D); for pixels of one size the views are always the same."""
        width, pair = images_of_pass(self.release.manifest.input.size), replace(views, count=2)
        parts = []
        for number, at in enumerate(range(0, len(rows), width)):
            pixels = torch.from_numpy(self.read(rows[at : at + width]))
            drawn = random_views(pixels, pair, views_generator(0, number))  # (2, n, 3, S, S) in [0, 1]
            images = (drawn * 255).round().clamp(0, 255).to(torch.uint8).permute(0, 1, 3, 4, 2).contiguous().numpy()
            parts.append(np.stack([self.runtime(one).embedding for one in images]))
        return np.concatenate(parts, axis=1)

    def _joined(self, parts: list[Outputs]) -> Outputs:
        if not parts:
            return Outputs(np.empty((0, self.release.manifest.embedding_dim), np.float32), None)
        logits = [part.logits for part in parts if part.logits is not None]
        return Outputs(np.concatenate([part.embedding for part in parts]), np.concatenate(logits) if logits else None)


def embed_all(contender: Contender, sample: Sample, views: ViewsConfig) -> ComparedEmbeddings:
    """Embed everything that a comparison needs of one release."""
    title = contender.release.manifest.title
    return ComparedEmbeddings(
        gallery=contender.embed(sample.gallery, f"{title}: gallery").embedding,
        validation=contender.embed(sample.validation, f"{title}: validation").embedding,
        queries=contender.embed(sample.queries, f"{title}: queries"),
        views=contender.embed_views(sample.queries[sample.signals], views),
    )


def with_logits_of(contender: Contender, embedded: ComparedEmbeddings, sample: Sample) -> ComparedEmbeddings:
    """The same embeddings with the logits of another release of their space; only the queries are run again."""
    found = contender.embed(sample.queries, f"{contender.release.manifest.title}: queries")
    return replace(embedded, queries=Outputs(embedded.queries.embedding, found.logits))
