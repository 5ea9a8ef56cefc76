"""Tensors of the Open Inference Protocol: in JSON, or as bytes behind it (its binary tensor data extension).

Bytes are little-endian and row-major. An element of type BYTES is preceded by its length, four bytes.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Annotated, Any

import msgspec
import numpy as np
import orjson
from numpy.typing import NDArray

from serving.protocol.image_text import image_of
from serving.protocol.messages import RequestError

_Byte = Annotated[int, msgspec.Meta(ge=0, le=255)]
_LENGTH = 4  # bytes


def _decoders(element: Any, depth: int) -> tuple[msgspec.json.Decoder[Any], ...]:
    """By how many brackets the data opens with, less one."""
    kinds = [list[element]]
    for _ in range(depth - 1):
        kinds.append(list[kinds[-1]])  # type: ignore[valid-type]
    return tuple(map(msgspec.json.Decoder, kinds))


_PIXELS = _decoders(_Byte, 4)
_TEXTS = _decoders(str, 2)


def pixels_of_json(data: bytes, shape: Sequence[int]) -> NDArray[np.uint8]:
    """Numbers from 0 to 255, flat or nested as the shape is, as uint8 of that shape. Raises `RequestError`."""
    count = data.count(b",") + 1  # before millions of numbers become Python's, which take many times their room
    if count != math.prod(shape):
        raise RequestError(f"data has {count} elements; shape {[*shape]} needs {math.prod(shape)}")
    values = _decoded(data, _PIXELS)
    try:
        found = np.frombuffer(bytes(values), np.uint8) if isinstance(values[0], int) else np.array(values, np.uint8)
    except ValueError as error:
        raise RequestError(f"data is nested unevenly; shape is {[*shape]}") from error
    if found.ndim > 1 and found.shape != tuple(shape):
        raise RequestError(f"data is nested as {[*found.shape]}, and shape is {[*shape]}")
    return found.reshape(shape)


def pixels_of_bytes(data: memoryview, shape: Sequence[int]) -> NDArray[np.uint8]:
    """Bytes as uint8 of that shape. Raises `RequestError`."""
    if len(data) != math.prod(shape):
        raise RequestError(f"the binary data has {len(data)} bytes; shape {[*shape]} needs {math.prod(shape)}")
    return np.frombuffer(data, np.uint8).reshape(shape)


def files_of_json(data: bytes, shape: Sequence[int]) -> list[bytes]:
    """Image files in base64. Raises `RequestError`."""
    texts = _decoded(data, _TEXTS)
    flat = texts if isinstance(texts[0], str) else [*chain.from_iterable(texts)]
    if len(flat) != math.prod(shape):
        raise RequestError(f"data has {len(flat)} elements; shape {[*shape]} needs {math.prod(shape)}")
    return [image_of(text, f"image {at}") for at, text in enumerate(flat)]


def files_of_bytes(data: memoryview, shape: Sequence[int]) -> list[bytes]:
    """Image files, each behind its length. Raises `RequestError`."""
    found = [*_elements(data)]
    if len(found) != math.prod(shape):
        raise RequestError(f"the binary data has {len(found)} elements; shape {[*shape]} needs {math.prod(shape)}")
    return found


def json_of(tensor: NDArray[np.float32]) -> Any:
    """Numbers as JSON has them, flat, for `orjson`."""
    return orjson.Fragment(orjson.dumps(tensor.ravel(), option=orjson.OPT_SERIALIZE_NUMPY))


def bytes_of(tensor: NDArray[np.float32]) -> bytes:
    """Numbers as the extension has them."""
    return tensor.astype("<f4", copy=False).tobytes()


def _elements(data: memoryview) -> Iterator[bytes]:
    at = 0
    while at < len(data):
        end = at + _LENGTH + int.from_bytes(data[at : at + _LENGTH], "little")
        if at + _LENGTH > len(data) or end > len(data):
            raise RequestError(f"the binary data ends within the element that begins at byte {at}")
        yield bytes(data[at + _LENGTH : end])
        at = end


def _decoded(data: bytes, decoders: Sequence[msgspec.json.Decoder[Any]]) -> list[Any]:
    opening = data[:64].translate(None, b" \t\r\n")
    depth = len(opening) - len(opening.lstrip(b"["))
    try:
        found: list[Any] = decoders[min(max(depth, 1), len(decoders)) - 1].decode(data)
    except msgspec.DecodeError as error:
        raise RequestError(f"data can't be read: {error}") from error
    if not found:
        raise RequestError("data is empty")
    return found
