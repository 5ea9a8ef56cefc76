"""Weaviate's container for its module `img2vec-neural`: one image in, its vector out."""

from http import HTTPStatus

import msgspec
import orjson

from serving.gateway.dialects.model import ServedModel, needed
from serving.gateway.dialects.route import DialectRoute, HttpRequest, Translation, embeddings_of, text_error
from serving.protocol.image_text import image_of
from serving.protocol.messages import Answer, RequestError
from serving.protocol.operations import EmbedRequest
from serving.protocol.wire import Reply


class WeaviateImage(msgspec.Struct):
    """An image file in base64, and what Weaviate calls it."""

    image: str
    id: str = ""


class WeaviateVector(msgspec.Struct, forbid_unknown_fields=True):
    """The image's embedding, and how many numbers it has."""

    id: str
    vector: list[float]
    dim: int


class WeaviateMeta(msgspec.Struct, forbid_unknown_fields=True):
    """What is served."""

    model: str
    architecture: str
    dim: int
    image_size: int


class WeaviateError(msgspec.Struct, forbid_unknown_fields=True):
    """An error as Weaviate reads it."""

    error: str


_DECODER = msgspec.json.Decoder(WeaviateImage)


def live(request: HttpRequest, model: ServedModel | None) -> Reply:
    """That the server answers."""
    return Reply(HTTPStatus.NO_CONTENT, b"")


def ready(request: HttpRequest, model: ServedModel | None) -> Reply:
    """That images can be embedded."""
    needed(model)
    return Reply(HTTPStatus.NO_CONTENT, b"")


def meta(request: HttpRequest, model: ServedModel | None) -> Reply:
    """What is served."""
    served = needed(model)
    about = {
        "model": served.title,
        "architecture": served.architecture,
        "dim": served.dim,
        "image_size": served.size,
    }
    return Reply(200, orjson.dumps(about))


def vectors(request: HttpRequest, model: ServedModel | None) -> Translation:
    """The vector of one image. The body is JSON whatever content type it has: Weaviate sends none."""
    try:
        asked = _DECODER.decode(request.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError(f"the JSON body can't be read: {error}") from error

    def write(answer: Answer) -> Reply:
        (result,) = embeddings_of(answer, "image")
        vector = result["embedding"]
        content = {"id": asked.id, "vector": vector, "dim": len(vector)}
        return Reply(200, orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY))

    return Translation(EmbedRequest((image_of(asked.image, "image"),)), write)


ROUTES = (
    DialectRoute(
        *("POST", "/vectors", vectors, text_error, "The vector of an image, as Weaviate's img2vec-neural asks for it."),
        error=WeaviateError,
        body=WeaviateImage,
        reply=WeaviateVector,
    ),
    DialectRoute(
        *("GET", "/.well-known/live", live, text_error, "Whether the server answers."),
        error=WeaviateError,
        status=HTTPStatus.NO_CONTENT,
        open=True,
        needs_model=False,
    ),
    DialectRoute(
        *("GET", "/.well-known/ready", ready, text_error, "Whether a worker can embed images."),
        error=WeaviateError,
        status=HTTPStatus.NO_CONTENT,
        open=True,
    ),
    DialectRoute(
        *("GET", "/meta", meta, text_error, "What is served, as Weaviate asks for it."),
        error=WeaviateError,
        reply=WeaviateMeta,
    ),
)
