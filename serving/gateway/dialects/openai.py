"""OpenAI's embeddings and models, with Infinity's field `modality`: its clients embed images here.

`input` is one image file or several, each as a data URI or bare base64. OpenAI has no partial results, so one image
that can't be embedded fails the request.
"""

import base64
import re
from http import HTTPStatus
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import orjson
from numpy.typing import NDArray

from serving.gateway.dialects.model import ServedModel, check_release, needed
from serving.gateway.dialects.route import DialectRoute, HttpRequest, Translation, embeddings_of, error_reply
from serving.protocol.agreed import MAX_IMAGES
from serving.protocol.image_text import image_of
from serving.protocol.messages import Answer, Failure, RequestError
from serving.protocol.operations import EmbedRequest
from serving.protocol.wire import Reply

_PLACE = re.compile(r"`\$\.(\w+)|field `(\w+)`")


class OpenAIEmbeddingsRequest(msgspec.Struct, forbid_unknown_fields=True):
    """What `POST /v1/embeddings` takes: images as data URIs or base64. `user` goes unheeded."""

    input: str | Annotated[list[str], msgspec.Meta(min_length=1, max_length=MAX_IMAGES)]
    model: str
    modality: Literal["image", "text", "audio"] = "image"
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None
    user: str | None = None


class OpenAIEmbedding(msgspec.Struct, forbid_unknown_fields=True):
    """The embedding of the image at `index`: numbers, or little-endian float32 in base64."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class OpenAIUsage(msgspec.Struct, forbid_unknown_fields=True):
    """Images have no tokens."""

    prompt_tokens: Literal[0]
    total_tokens: Literal[0]


class OpenAIEmbeddings(msgspec.Struct, forbid_unknown_fields=True):
    """The embeddings, and the release that made them."""

    object: Literal["list"]
    data: list[OpenAIEmbedding]
    model: str
    usage: OpenAIUsage


class OpenAIModel(msgspec.Struct, forbid_unknown_fields=True):
    """A release that is served; `created` in seconds since 1970."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: Literal["simclr"]


class OpenAIModels(msgspec.Struct, forbid_unknown_fields=True):
    """The release that is served."""

    object: Literal["list"]
    data: list[OpenAIModel]


class OpenAIErrorDetails(msgspec.Struct, forbid_unknown_fields=True):
    """What went wrong; `param` is the field that was wrong, where it is one."""

    message: str
    type: str
    param: str | None
    code: str | None


class OpenAIError(msgspec.Struct, forbid_unknown_fields=True):
    """An error as OpenAI writes it."""

    error: OpenAIErrorDetails


class ParameterError(RequestError):
    """What is wrong with one field, `param`; `code` is OpenAI's word for it."""

    def __init__(self, message: str, param: str | None, *, status: int = 400, code: str | None = None) -> None:
        super().__init__(message, status)
        self.param = param
        self.code = code


_DECODER = msgspec.json.Decoder(OpenAIEmbeddingsRequest)


def refuse(error: Failure) -> Reply:
    """An error in OpenAI's shape, with the status that it has everywhere."""
    details = {
        "message": str(error),
        "type": _type_of(error.status),
        "param": getattr(error, "param", None),
        "code": getattr(error, "code", None),
    }
    return error_reply(error, {"error": details})


def list_models(request: HttpRequest, model: ServedModel | None) -> Reply:
    """The one model that is served."""
    return Reply(200, orjson.dumps({"object": "list", "data": [_model(needed(model))]}))


def show_model(request: HttpRequest, model: ServedModel | None) -> Reply:
    """The model of this name; the reply calls it by its title."""
    served = needed(model)
    _check_model("/".join(request.path.values()), served)
    return Reply(200, orjson.dumps(_model(served)))


def embed(request: HttpRequest, model: ServedModel | None) -> Translation:
    """Embeddings of one image or several."""
    asked = _read(request.body)
    served = needed(model)
    _check_model(asked.model, served)
    _check_options(asked, served)

    def write(answer: Answer) -> Reply:
        check_release(answer, asked.model, served)
        try:
            return _embeddings(answer, base64=asked.encoding_format == "base64")
        except RequestError as error:
            raise ParameterError(str(error), "input", status=error.status) from error

    return Translation(EmbedRequest(_images(asked.input)), write)


def _read(body: bytes) -> OpenAIEmbeddingsRequest:
    try:
        return _DECODER.decode(body)
    except msgspec.ValidationError as error:
        place = _PLACE.search(str(error))
        raise ParameterError(f"the request can't be taken: {error}", place and (place[1] or place[2])) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError(f"the JSON body can't be read: {error}") from error


def _check_model(asked: str, model: ServedModel) -> None:
    if asked not in model.names:
        message = f"model is {asked!r}; it must be one of {', '.join(model.names)}"
        raise ParameterError(message, "model", status=HTTPStatus.NOT_FOUND, code="model_not_found")


def _check_options(asked: OpenAIEmbeddingsRequest, model: ServedModel) -> None:
    if asked.modality != "image":
        raise ParameterError(
            f"modality is {asked.modality!r}: SimCLR knows no words and no sounds; it must be 'image'", "modality"
        )
    if asked.dimensions not in (None, model.dim):
        raise ParameterError(f"dimensions is {asked.dimensions}; this release has {model.dim}", "dimensions")


def _images(given: str | list[str]) -> tuple[bytes, ...]:
    try:
        if isinstance(given, str):
            return (image_of(given, "input"),)
        return tuple(image_of(text, f"input {at}") for at, text in enumerate(given))
    except RequestError as error:
        raise ParameterError(str(error), "input") from error


def _embeddings(answer: Answer, *, base64: bool) -> Reply:
    data = [
        {"object": "embedding", "index": at, "embedding": _in_base64(one["embedding"]) if base64 else one["embedding"]}
        for at, one in enumerate(embeddings_of(answer, "input"))
    ]
    usage = {"prompt_tokens": 0, "total_tokens": 0}
    content = {"object": "list", "data": data, "model": answer.release, "usage": usage}
    return Reply(200, orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY))


def _in_base64(embedding: NDArray[np.float32]) -> str:
    return base64.b64encode(embedding.astype("<f4", copy=False).tobytes()).decode()


def _model(model: ServedModel) -> dict[str, Any]:
    return {"id": model.title, "object": "model", "created": model.created, "owned_by": "simclr"}


def _type_of(status: int) -> str:
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return "rate_limit_error"
    return "server_error" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "invalid_request_error"


ROUTES = (
    DialectRoute(
        *("GET", "/v1/models", list_models, refuse, "The release that is served, as OpenAI lists models."),
        error=OpenAIError,
        reply=OpenAIModels,
    ),
    *(
        DialectRoute(
            *("GET", path, show_model, refuse, "The release that is served, by any of its names."),
            error=OpenAIError,
            reply=OpenAIModel,
        )
        for path in ("/v1/models/{model}", "/v1/models/{model}/{version}")
    ),
    DialectRoute(
        *("POST", "/v1/embeddings", embed, refuse, "Embeddings of images, as OpenAI's clients ask for them."),
        error=OpenAIError,
        body=OpenAIEmbeddingsRequest,
        reply=OpenAIEmbeddings,
    ),
)
