"""Frames: many requests in one message to a worker, and their answers in one message back, as msgpack.

Image files, embeddings and pictures travel as they are in memory, so that what the gateway reads of a frame is what the
engine answered, to the bit. A frame is of one version of this project: the gateway asks before it sends any.
"""

from collections.abc import Sequence
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from core.images.decode import ImageError
from serving.protocol.messages import Answer, Picture, RequestError
from serving.protocol.operations import OPERATIONS, Request

FRAME = "application/x-simclr-frame"

_ARRAY, _PICTURE, _FAILURE = 1, 2, 3
if TYPE_CHECKING:
    AnyRequest = Request
else:
    AnyRequest = reduce(or_, (row.request for row in OPERATIONS.values()))


class Asked(msgspec.Struct, array_like=True, frozen=True):
    """What comes in a frame: requests, and what logs call each of them, where that is known."""

    requests: list[AnyRequest]
    origins: list[str] = []


class Work(msgspec.Struct, array_like=True, frozen=True):
    """What the process `worker` says of a frame: when it began, in seconds since 1970, and how many it took."""

    worker: int
    begun: float
    seconds: float


class Answered(NamedTuple):
    """The answers to a frame, and the work that they were."""

    answers: Sequence[Answer | RequestError]
    work: Work | None = None


def pack_requests(requests: Sequence[Request], origins: Sequence[str] = ()) -> bytes:
    """The message that carries these requests."""
    return _ENCODER.encode((requests, origins))


def unpack_requests(message: bytes) -> Asked:
    """What a message carries; raises `RequestError` if it is none of this version."""
    try:
        return _ASKED.decode(message)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise RequestError(f"the frame can't be read: {error}") from error


def pack_answers(answers: Sequence[Answer | RequestError], *, work: Work | None = None) -> bytes:
    """The message that carries these answers."""
    return _ENCODER.encode([work, *map(_plain, answers)])


def unpack_answers(message: bytes) -> Answered:
    """The answers that a message carries. Arrays are read-only views of it."""
    said, *answers = _ANSWERS.decode(message)
    work = Work(*said) if said is not None else None
    worker = work.worker if work is not None else None
    found = [one if isinstance(one, RequestError) else Answer(**one, worker=worker) for one in answers]
    return Answered(found, work)


def _plain(answer: Answer | RequestError) -> Any:
    """An answer with the medians only where they are needed, and its pictures as extensions."""
    if isinstance(answer, RequestError):
        return answer
    medians = answer.medians if answer.encoding == "binary" else None
    results = [_with_pictures(result) for result in answer.results]
    return {
        "release": answer.release,
        "results": results,
        "encoding": answer.encoding,
        "medians": medians,
        "more": _with_pictures(answer.more),
    }


def _with_pictures(value: Any) -> Any:
    """msgspec would write a picture, which is a dataclass, as the map of its fields."""
    if isinstance(value, Picture):
        return _extension(_PICTURE, (value.media_type, value.content))
    if isinstance(value, dict):
        return {name: _with_pictures(one) for name, one in value.items()}
    return [_with_pictures(one) for one in value] if isinstance(value, list) else value


def _written(value: Any) -> Any:
    """What msgspec has no form for."""
    if isinstance(value, np.ndarray):
        return _extension(_ARRAY, (value.dtype.str, value.shape, np.ascontiguousarray(value).data.cast("B")))
    if isinstance(value, ImageError | RequestError):
        again = getattr(value, "retry_after", None)
        return _extension(_FAILURE, (str(value), value.status, again))
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} has no form in a frame")


def _read(code: int, data: memoryview) -> Any:
    if code == _ARRAY:
        dtype, shape, content = _PARTS.decode(data)
        return _array(dtype, shape, content)
    if code == _PICTURE:
        media_type, content = _PARTS.decode(data)
        return Picture(content, media_type)
    message, status, again = _PARTS.decode(data)
    return RequestError(message, status, retry_after=again)  # what was an `ImageError` is one with its status


def _array(dtype: str, shape: Sequence[int], content: bytes) -> NDArray[Any]:
    return np.frombuffer(content, dtype).reshape(shape)


def _extension(code: int, parts: tuple[Any, ...]) -> msgspec.msgpack.Ext:
    return msgspec.msgpack.Ext(code, msgspec.msgpack.encode(parts))


_ENCODER = msgspec.msgpack.Encoder(enc_hook=_written)
_ASKED = msgspec.msgpack.Decoder(Asked)
_ANSWERS = msgspec.msgpack.Decoder(list[Any], ext_hook=_read)
_PARTS = msgspec.msgpack.Decoder()
