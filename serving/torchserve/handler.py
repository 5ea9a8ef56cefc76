"""TorchServe's door: a batch comes in, and each item gets its own answer, status and content type.

TorchServe fails a whole batch with 503 when a handler raises, so nothing is raised here.
The collection is the folder named by the environment variable SIMCLR_COLLECTION (none: no search); every worker has
it open, and keeps it. Requests and replies are read and written by `serving.protocol.wire`.
"""

import ctypes
import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

from serving.engine import Engine
from serving.inference.options import EngineOptions
from serving.operations.keeping import Keeper
from serving.protocol.batches import encoded_together
from serving.protocol.messages import Answer, RequestError
from serving.protocol.operations import Request
from serving.protocol.wire import WORKER_HEADER, Reply
from serving.torchserve.busy import Busy
from serving.torchserve.calls import Received, call_of, reply_to
from serving.torchserve.parameters import keep_all

COLLECTION_VARIABLE = "SIMCLR_COLLECTION"
_LOG = logging.getLogger(__name__)


class Handler:
    """What TorchServe loads: `initialize` once per worker, `handle` per batch.

    It loads only a module that has no other class.
    """

    def __init__(self) -> None:
        self._engine: Engine | None = None
        self._keeper: Keeper | None = None
        self._busy = Busy()

    def initialize(self, context: Any) -> None:
        """Open the release that lies in the model's folder, and the collection; raises if either is unfit."""
        _log_without_a_line_a_request()
        keep_all()
        gpu = context.system_properties.get("gpu_id")
        self._engine = Engine.open(
            context.system_properties["model_dir"],
            os.environ.get(COLLECTION_VARIABLE) or None,
            device="cpu" if gpu is None else "cuda",
            gpu=int(gpu or 0),
            options=EngineOptions.from_environment(),
        )
        if self._engine.collection is not None:
            self._keeper = Keeper(self._engine.collection)
        self._busy = Busy(self._engine.manifest.version)
        _return_free_memory()

    def handle(self, data: Sequence[Received], context: Any) -> list[bytes]:
        """Answer one batch: as many byte strings as there are requests, in their order."""
        with self._busy.held():
            return self._handle(data, context)

    def _handle(self, data: Sequence[Received], context: Any) -> list[bytes]:
        headers = [context.get_all_request_header(index) for index in range(len(data))]
        replies = self.replies([*zip(data, headers, strict=True)])
        for index, reply in enumerate(replies):
            context.set_response_status(code=reply.status, idx=index)
            context.set_response_content_type(index, reply.content_type)
            for name, value in {**reply.headers, WORKER_HEADER: str(os.getpid())}.items():
                context.set_response_header(index, name, value)
        return [reply.body for reply in replies]

    def replies(self, batch: Sequence[tuple[Received, Mapping[str, Any]]]) -> list[Reply]:
        """The replies to pairs of what was received and headers: one engine call for all that can be read."""
        calls = [call_of(received, headers) for received, headers in batch]
        origins = [origin for call in calls for origin in call.origins]
        answers = iter(self._answers([request for call in calls for request in call.requests], origins))
        for call in calls:
            call.take([next(answers) for _ in call.requests])
        return encoded_together(calls, reply_to)

    def _answers(self, requests: Sequence[Request], origins: Sequence[str]) -> Sequence[Answer | RequestError]:
        """All in one pass; if something unforeseen breaks it, one by one, so that only its cause fails."""
        assert self._engine is not None
        try:
            return self._engine.answer(requests)
        except Exception as error:
            _LOG.exception("a batch of %d requests failed: %s", len(requests), ", ".join(origins) or "-")
            if len(requests) == 1:
                return [RequestError(f"internal error: {type(error).__name__}", 500)]
            return [self._answers([request], ())[0] for request in requests]


def _return_free_memory() -> None:
    """Opening a release leaves tens of megabytes free that glibc would keep, in every worker."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _log_without_a_line_a_request() -> None:
    """TorchServe's worker logs every batch and every metric at INFO through the root logger; only ours stays there."""
    logging.getLogger().setLevel(logging.WARNING)
    logging.getLogger("serving").setLevel(logging.INFO)
