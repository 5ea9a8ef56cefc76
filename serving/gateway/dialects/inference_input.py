"""The input of an inference request, decoded images or image files, as image files."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from serving.gateway.dialects import tensors
from serving.gateway.dialects.inference_messages import InferenceInput, InferenceRequest
from serving.gateway.dialects.model import ServedModel
from serving.protocol.agreed import MAX_IMAGES
from serving.protocol.messages import RequestError


def images_of(asked: InferenceRequest, rest: memoryview, model: ServedModel) -> Sequence[bytes]:
    """The one input, as image files; raises `RequestError`. `rest` is what lies behind the JSON."""
    if [one.name for one in asked.inputs] != ["images"]:
        raise RequestError(f"inputs are {[one.name for one in asked.inputs]!r:.80}; there must be one, images")
    (given,) = asked.inputs
    _check_shape(given, model.size)
    return _files(given, _binary(given, rest))


def _check_shape(given: InferenceInput, size: int) -> None:
    if given.datatype not in ("UINT8", "BYTES"):
        raise RequestError(f"datatype of images is {given.datatype!r:.80}; it must be UINT8 or BYTES")
    images, accepted = given.shape[:1], ([size, size, 3],) if given.datatype == "UINT8" else ([], [1])
    if not images or given.shape[1:] not in accepted:
        wanted = [-1, *accepted[0]]
        raise RequestError(f"shape of images is {given.shape!r:.80}; for {given.datatype} it must be {wanted}")
    if not 1 <= images[0] <= MAX_IMAGES:
        status = 413 if images[0] > 0 else 400
        raise RequestError(f"shape of images is for {images[0]} images; from 1 to {MAX_IMAGES} are taken", status)


def _binary(given: InferenceInput, rest: memoryview) -> memoryview | None:
    """The bytes of a binary tensor; None where the data is in the JSON."""
    size = given.parameters.get("binary_data_size")
    if size is None:
        if len(rest):
            raise RequestError(f"{len(rest)} bytes are behind the JSON, and images has no binary_data_size")
        return None
    if size != len(rest):
        raise RequestError(f"binary_data_size of images is {size!r:.80}; {len(rest)} bytes are behind the JSON")
    return rest


def _files(given: InferenceInput, binary: memoryview | None) -> Sequence[bytes]:
    data, shape = bytes(given.data), given.shape
    if binary is None and not data:
        raise RequestError("images has neither data nor binary_data_size")
    if given.datatype == "BYTES":
        return tensors.files_of_json(data, shape) if binary is None else tensors.files_of_bytes(binary, shape)
    pixels = tensors.pixels_of_json(data, shape) if binary is None else tensors.pixels_of_bytes(binary, shape)
    return [_file(image) for image in pixels]


def _file(pixels: NDArray[np.uint8]) -> bytes:
    """Pixels (S, S, 3) as a PPM file: a line, and the very bytes. It is decoded to them again."""
    height, width, _ = pixels.shape
    return b"P6\n%d %d\n255\n" % (width, height) + pixels.tobytes()
