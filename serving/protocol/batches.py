"""The replies of one batch, of which only so many bytes are sent at once.

TorchServe's time for a batch grows with the square of its bytes, so what does not fit comes later: the client is told
when to ask again. What changed something is never told to: it was done.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from serving.protocol.media_types import JSON
from serving.protocol.messages import Answer, Picture, RequestError
from serving.protocol.operations import Request, operation_of
from serving.protocol.wire import Call, Reply, encode_error

MAX_BATCH_BYTES = 8 << 20  # of the large replies of a batch; the first of them may have more
_LARGEST = 50 << 20  # TorchServe's worker dies of a reply above 64 MiB

_SMALL = 64 << 10  # bytes of a reply that always fits
NUMBER_BYTES = 12  # of a float32 in JSON, about
_RETRY_SECONDS = 1


def encoded_together(calls: Sequence[Call], encoded: Callable[[Call], Reply]) -> list[Reply]:
    """The reply to each call: that of `encoded`, or 503 where it does not fit with those before it any more.

    A reply in JSON that is plainly too large for what is left is not written at all.
    """
    replies: list[Reply] = []
    used = 0
    for call in calls:
        if call.request is None or operation_of(call.request).changes:
            replies.append(encoded(call))
            continue
        reply = _later() if call.media_type == JSON and _too_much(used, expected_bytes(call.answer)) else None
        reply = reply or _alone(encoded(call))
        size = len(reply.body)
        replies.append(_later() if _too_much(used, size) else reply)
        used += size if replies[-1] is reply and size > _SMALL else 0
    return replies


def fitting(requests: Sequence[Request], answers: Sequence[Answer | RequestError]) -> Sequence[Answer | RequestError]:
    """The answers to a frame of requests, those of reads that do not fit with the others any more put off."""
    found: list[Answer | RequestError] = []
    used = 0
    for request, answer in zip(requests, answers, strict=True):
        size = expected_bytes(answer)
        later = _too_much(used, size) and not operation_of(request).changes
        found.append(_put_off() if later else answer)
        used += size if size > _SMALL and not later else 0
    return found


def _too_much(used: int, more: int) -> bool:
    return bool(used) and more > _SMALL and used + more > MAX_BATCH_BYTES


def expected_bytes(answer: Any) -> int:
    """About how many bytes an answer, or a value in it, will have, by its texts, vectors and pictures alone."""
    if isinstance(answer, Answer):
        return expected_bytes(answer.results) + expected_bytes(answer.more)
    if isinstance(answer, np.ndarray):
        return NUMBER_BYTES * answer.size
    if isinstance(answer, Picture):
        return len(answer.content) * 4 // 3
    if isinstance(answer, dict):
        return sum(map(expected_bytes, answer.values()))
    if isinstance(answer, str):
        return len(answer)
    return sum(map(expected_bytes, answer)) if isinstance(answer, list) else 0


def _alone(reply: Reply) -> Reply:
    if len(reply.body) <= _LARGEST:
        return reply
    size = len(reply.body) >> 20
    return encode_error(RequestError(f"the reply has {size} MiB; at most {_LARGEST >> 20}: ask for less", 413))


def _later() -> Reply:
    return encode_error(_put_off())


def _put_off() -> RequestError:
    return RequestError("the replies of others asked at the same time fill the batch", 503, retry_after=_RETRY_SECONDS)
