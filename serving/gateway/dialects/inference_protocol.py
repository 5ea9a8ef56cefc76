"""Open Inference Protocol, version 2 (KServe's): health, metadata and inference, with binary tensors.

The input `images` is either decoded images, UINT8 [N, S, S, 3], or image files, BYTES [N]. The outputs are
`embedding`, FP32 [N, D], and of a release with a linear probe `logits`, FP32 [N, C]. The protocol has no partial
results, so one image that can't be embedded fails the request.
"""

import re
from http import HTTPStatus
from importlib import metadata
from typing import Any, Literal

import msgspec
import numpy as np
import orjson

from serving.gateway.dialects import tensors
from serving.gateway.dialects.inference_input import images_of
from serving.gateway.dialects.inference_messages import (
    InferenceError,
    InferenceLive,
    InferenceModel,
    InferenceModelReady,
    InferenceReady,
    InferenceReply,
    InferenceRequest,
    InferenceServer,
    InferenceTensor,
)
from serving.gateway.dialects.model import ANY_RELEASE, ServedModel, check_release, needed
from serving.gateway.dialects.route import DialectRoute, HttpRequest, Translation, embeddings_of, text_error
from serving.protocol.agreed import MODEL
from serving.protocol.media_types import JSON, RAW
from serving.protocol.messages import Answer, RequestError
from serving.protocol.operations import EmbedRequest
from serving.protocol.wire import Reply

HEADER_LENGTH = "inference-header-content-length"  # where the JSON ends and binary tensors begin
_PLATFORMS = {"torchscript": "pytorch_torchscript"}  # every other form is ONNX
_DECODER = msgspec.json.Decoder(InferenceRequest)


def live(request: HttpRequest, model: ServedModel | None) -> Reply:
    """That the server answers."""
    return _json(InferenceLive(live=True))


def ready(request: HttpRequest, model: ServedModel | None) -> Reply:
    """That a worker can embed images."""
    needed(model)
    return _json(InferenceReady(ready=True))


def show_server(request: HttpRequest, model: ServedModel | None) -> Reply:
    """The server's metadata."""
    return _json(InferenceServer(MODEL, metadata.version("simclr-service"), ["binary_tensor_data"]))


def show_model(request: HttpRequest, model: ServedModel | None) -> Reply:
    """The metadata of the model and, where the path has one, the version."""
    served = _model(request, model)
    outputs = [InferenceTensor(name, "FP32", [-1, width]) for name, width in _outputs(served).items()]
    images = InferenceTensor("images", "UINT8", [-1, served.size, served.size, 3])
    platform = _PLATFORMS.get(served.form, "onnxruntime_onnx")
    return _json(InferenceModel(served.name, [served.version], platform, [images], outputs))


def model_ready(request: HttpRequest, model: ServedModel | None) -> Reply:
    """That this model can embed images."""
    return _json(InferenceModelReady(_model(request, model).name, ready=True))


def infer(request: HttpRequest, model: ServedModel | None) -> Translation:
    """Embeddings, and logits, of decoded images or image files."""
    asked, rest = _read(request)
    served = _model(request, model)
    outputs = _wanted(asked, served)
    images = images_of(asked, rest, served)
    include: frozenset[Literal["logits"]] = frozenset({"logits"}) if "logits" in outputs else frozenset()
    title = served.title if "version" in request.path else request.path["model"]

    def write(answer: Answer) -> Reply:
        check_release(answer, title, served)
        return _reply(answer, outputs, asked.id)

    return Translation(EmbedRequest(tuple(images), include=include), write)


def _json(content: msgspec.Struct) -> Reply:
    return Reply(200, msgspec.json.encode(content))


def _model(request: HttpRequest, model: ServedModel | None) -> ServedModel:
    """The model that the path names; raises `RequestError`."""
    served, name, version = needed(model), request.path["model"], request.path.get("version")
    if name not in (served.name, *ANY_RELEASE):
        names = ", ".join((served.name, *ANY_RELEASE))
        raise RequestError(f"model is {name!r}; it must be one of {names}", HTTPStatus.NOT_FOUND)
    if version not in (None, served.version):
        message = f"version is {version!r}; of {served.name}, {served.version} is served"
        raise RequestError(message, HTTPStatus.NOT_FOUND)
    return served


def _outputs(model: ServedModel) -> dict[str, int]:
    """How many numbers each output has for an image."""
    return {"embedding": model.dim} | ({} if model.labels is None else {"logits": len(model.labels)})


def _read(request: HttpRequest) -> tuple[InferenceRequest, memoryview]:
    """The JSON, and the bytes of binary tensors behind it."""
    body = memoryview(request.body)
    length = _length(request.headers.get(HEADER_LENGTH), len(body))
    try:
        return _DECODER.decode(body[:length]), body[length:]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError(f"the JSON can't be read: {error}") from error


def _length(text: str | None, most: int) -> int:
    """How many bytes of the body are JSON."""
    if text is None:
        return most
    if not re.fullmatch("[0-9]{1,12}", text) or int(text) > most:
        raise RequestError(f"{HEADER_LENGTH} is {text!r:.80}; it must be a number up to the body's {most} bytes")
    return int(text)


def _wanted(asked: InferenceRequest, model: ServedModel) -> dict[str, bool]:
    """The outputs that are wanted, and whether each is to come as bytes."""
    known, usually = _outputs(model), asked.parameters.get("binary_data_output") is True
    for one in asked.outputs:
        if one.name not in known:
            raise RequestError(f"output {one.name!r} is none of {model.title}; it has {', '.join(known)}")
    if not asked.outputs:
        return dict.fromkeys(known, usually)
    return {one.name: one.parameters.get("binary_data", usually) is True for one in asked.outputs}


def _reply(answer: Answer, outputs: dict[str, bool], name: str | None) -> Reply:
    """The reply as JSON, with the outputs that are wanted so as bytes behind it."""
    results = embeddings_of(answer, "image")
    written, behind = [], []
    for output, binary in outputs.items():
        tensor = np.stack([result[output] for result in results])
        one: dict[str, Any] = {"name": output, "datatype": "FP32", "shape": [*tensor.shape]}
        if binary:
            behind.append(tensors.bytes_of(tensor))
            one["parameters"] = {"binary_data_size": len(behind[-1])}
        else:
            one["data"] = tensors.json_of(tensor)
        written.append(one)
    model, _, version = answer.release.rpartition("/")
    content = {"model_name": model, "model_version": version, "outputs": written}
    header = orjson.dumps(content if name is None else content | {"id": name})
    if not behind:
        return Reply(200, header, JSON)
    return Reply(200, b"".join((header, *behind)), RAW, {HEADER_LENGTH: str(len(header))})


def _at(path: str) -> tuple[str, str]:
    """The path of a model, and that of a version of it."""
    return f"/v2/models/{{model}}{path}", f"/v2/models/{{model}}/versions/{{version}}{path}"


ROUTES = (
    DialectRoute(
        *("GET", "/v2", show_server, text_error, "The server's metadata (Open Inference Protocol)."),
        error=InferenceError,
        reply=InferenceServer,
        needs_model=False,
    ),
    DialectRoute(
        *("GET", "/v2/health/live", live, text_error, "Whether the server answers."),
        error=InferenceError,
        reply=InferenceLive,
        open=True,
        needs_model=False,
    ),
    DialectRoute(
        *("GET", "/v2/health/ready", ready, text_error, "Whether a worker can embed images."),
        error=InferenceError,
        reply=InferenceReady,
        open=True,
    ),
    *(
        DialectRoute(
            *("GET", path, show_model, text_error, "The model's metadata."), error=InferenceError, reply=InferenceModel
        )
        for path in _at("")
    ),
    *(
        DialectRoute(
            *("GET", path, model_ready, text_error, "Whether this model can embed images."),
            error=InferenceError,
            reply=InferenceModelReady,
            open=True,
        )
        for path in _at("/ready")
    ),
    *(
        DialectRoute(
            *("POST", path, infer, text_error, "Embeddings, and logits, of decoded images or image files."),
            error=InferenceError,
            body=InferenceRequest,
            reply=InferenceReply,
            binary=True,
        )
        for path in _at("/infer")
    ),
)
