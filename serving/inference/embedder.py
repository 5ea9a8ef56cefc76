"""Image files to embeddings: threads decode the next pass while the runtime works on the current one.

Each file fails or succeeds alone.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from core.images.decode import DEFAULT_LIMITS, ImageError, Limits, decode
from core.images.jpeg import MARGIN
from core.machine.machine import usable_cores
from serving.inference.backends import Outputs
from serving.inference.embedding_cache import EmbeddingCache
from serving.inference.runtime import Runtime, images_of_pass, run_in_passes

_TASK_BYTES = 64 * 1024  # of files that a thread decodes at once: handing over fewer costs more than decoding them

Embedded = Outputs | ImageError
_Decoded = NDArray[np.uint8] | ImageError


class Embedder:
    """Embeds decoded images and image files of any size with one runtime, whose input has `size` pixels a side."""

    def __init__(
        self,
        runtime: Runtime,
        size: int,
        *,
        threads: int | None = None,
        per_pass: int | None = None,
        limits: Limits = DEFAULT_LIMITS,
        cache: EmbeddingCache | None = None,
        margin: int = MARGIN,
    ) -> None:
        """`threads` decode (default: one for each usable core), and a pass has at most `per_pass` images.

        `margin` is the release's (`core.images.decode.open_upright`).
        """
        self.size = size
        self.limits = limits
        self.cache = cache
        self._runtime = runtime
        self._margin = margin
        self._per_pass = per_pass or images_of_pass(size)
        self._decoders = ThreadPoolExecutor(threads or usable_cores(), thread_name_prefix="decode")

    @property
    def runtime_name(self) -> str:
        """What runs the graph, with its version and place."""
        return self._runtime.name

    def warm_up(self) -> None:
        """Run one image and a whole pass, so that the runtime has allocated and chosen what it does on first use."""
        for count in (1, self._per_pass):
            self.pixels(np.zeros((count, self.size, self.size, 3), np.uint8))

    def pixels(self, images: NDArray[np.uint8]) -> Outputs:
        """Embeddings (N, D) and logits (N, C) of decoded images, uint8 (N, S, S, 3), N >= 1."""
        return run_in_passes(self._runtime, images)

    def files(self, images: Sequence[bytes]) -> list[Embedded]:
        """For each image file its `Outputs`, (D,) and (C,), or the `ImageError` that it failed with."""
        if self.cache is None:
            return self.files_afresh(images)
        found: list[Embedded | None] = [*self.cache.find(images)]
        unknown = [place for place, entry in enumerate(found) if entry is None]
        for place, outputs in zip(unknown, self.files_afresh([images[place] for place in unknown]), strict=True):
            found[place] = outputs
            if isinstance(outputs, Outputs):
                self.cache.keep(images[place], outputs)
        return [entry for entry in found if entry is not None]

    def files_afresh(self, images: Sequence[bytes]) -> list[Embedded]:
        """The same without the cache; several threads may call it at once."""
        return [entry for decoded in self._decoded(images) for entry in self._run(decoded)]

    def _decoded(self, images: Sequence[bytes]) -> Iterator[list[_Decoded]]:
        """The decoded images of each pass; those of later passes are decoded meanwhile."""
        starts = range(0, len(images), self._per_pass)
        passes = [[*_tasks(images[at : at + self._per_pass])] for at in starts]
        if len(passes) == 1 and len(passes[0]) == 1:
            yield self._decode_all(passes[0][0])
            return
        futures = [[self._decoders.submit(self._decode_all, task) for task in tasks] for tasks in passes]
        for of_pass in futures:
            yield [array for future in of_pass for array in future.result()]

    def _decode_all(self, images: Sequence[bytes]) -> list[_Decoded]:
        return [self._decode(image) for image in images]

    def _decode(self, data: bytes) -> _Decoded:
        try:
            return decode(data, self.size, self.limits, margin=self._margin)
        except ImageError as error:
            return error

    def _run(self, decoded: Sequence[_Decoded]) -> list[Embedded]:
        good = [array for array in decoded if not isinstance(array, ImageError)]
        outputs = _rows(self._runtime(np.stack(good))) if good else iter(())
        return [array if isinstance(array, ImageError) else next(outputs) for array in decoded]


def _tasks(images: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """Split what one pass needs into runs of about `_TASK_BYTES`."""
    start = size = 0
    for at, image in enumerate(images):
        size += len(image)
        if size >= _TASK_BYTES or at == len(images) - 1:
            yield images[start : at + 1]
            start, size = at + 1, 0


def _rows(outputs: Outputs) -> Iterator[Outputs]:
    for row, embedding in enumerate(outputs.embedding):
        yield Outputs(embedding, outputs.logits[row] if outputs.logits is not None else None)
