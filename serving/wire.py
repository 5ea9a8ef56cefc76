"""Requests and replies as HTTP carries them: JSON, multipart, raw image bytes; JSON, npy and raw numbers.

`parse` takes what TorchServe hands a handler (fields and headers of one request), `encode` gives back status,
content type, headers and bytes. Nothing is ever unpickled.
Left out: TorchServe itself (`serving.handler`), and what the operations do (`serving.engine`).
"""

import base64
import binascii
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, cast

import msgspec
import numpy as np
import orjson
from numpy.typing import NDArray

from serving.encodings import ENCODINGS, Encoded, Encoding, pack
from serving.images import ImageError
from serving.messages import OPS, Answer, Failure, Op, Request, RequestError

Accept = Literal["application/json", "application/x-npy", "application/octet-stream"]
JSON: Final = "application/json"
NPY: Final = "application/x-npy"
RAW: Final = "application/octet-stream"
_OPTIONS = ("op", "k", "id", "encoding_format")
_ANY = ("*/*", "application/*", "")


class Body(msgspec.Struct, forbid_unknown_fields=True):
    """The JSON body. Images are base64 or data URIs; `image`, `id` and `vector` are short for lists of one."""

    op: str | None = None
    image: str | None = None
    images: list[str] = msgspec.field(default_factory=list)
    id: str | None = None
    ids: list[str] = msgspec.field(default_factory=list)
    vector: list[float] | None = None
    vectors: list[list[float]] = msgspec.field(default_factory=list)
    k: int | None = None
    encoding_format: str | None = None


@dataclass(frozen=True)
class Reply:
    """One HTTP reply."""

    status: int
    body: bytes
    content_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)


def parse(fields: Mapping[str, Any], headers: Mapping[str, Any]) -> tuple[Request, Accept]:
    """Read one request.

    `fields` are query parameters, multipart fields and `body`; `headers` the request's headers, and per field
    a dictionary with its content type. The operation is the query's or field's `op`, else the JSON's, else
    the path behind the version, else embed. Raises `RequestError`.
    """
    plain = {name.lower(): value for name, value in headers.items() if isinstance(value, str)}
    accept = _accept(plain.get("accept", ""))
    options = {name: _text(name, fields[name]) for name in _OPTIONS if name in fields}
    rest = {name: value for name, value in fields.items() if name not in _OPTIONS}
    body, images = Body(), []
    for name, value in rest.items():
        if _is_json(name, value, headers, plain):
            body = _json(value)
        elif name == "body" and not len(value):
            continue
        elif name == "body" or _is_file(name, headers):
            images.append(_bytes(name, value))
        else:
            raise RequestError(f"{name!r} is no option; the options are {', '.join(_OPTIONS)}, and an image is a file")
    path = plain.get("url_path", "")
    return _request(options, path, body, images, asked=_parameter(plain.get("accept", ""), "encoding_format")), accept


def encode(answer: Answer | Failure, accept: Accept = JSON) -> Reply:
    """Write one reply. The whole is an error only if all of it failed, or no JSON can carry the part."""
    if not isinstance(answer, Answer):
        return encode_error(answer)
    failures = [result for result in answer.results if isinstance(result, RequestError | ImageError)]
    if failures and (len(failures) == len(answer.results) or accept != JSON):
        return encode_error(failures[0])
    if accept != JSON:
        return _binary(answer, accept)
    if answer.op == "describe":
        return Reply(200, orjson.dumps(answer.results[0]))
    content: dict[str, Any] = {"release": answer.release}
    if answer.encoding != "float":
        content["encoding_format"] = answer.encoding
    content["results"] = [
        _error(result) if isinstance(result, RequestError | ImageError) else _written(answer, result)
        for result in answer.results
    ]
    return Reply(200, orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY))


def encode_error(error: Failure) -> Reply:
    """An error as JSON, whatever was asked for."""
    return Reply(error.status, orjson.dumps(_error(error)))


def _error(error: Failure) -> dict[str, Any]:
    return {"error": {"status": error.status, "message": str(error)}}


def _written(answer: Answer, result: dict[str, Any]) -> dict[str, Any]:
    """One result as JSON carries it: an embedding's numbers, or its bytes in base64."""
    if answer.op != "embed" or answer.encoding == "float":
        return result
    encoded = _packed(answer, [result])
    text = base64.b64encode(encoded.values.tobytes()).decode()
    return {"embedding": text} | ({} if encoded.scales is None else {"scale": float(encoded.scales[0])})


def _packed(answer: Answer, results: Sequence[dict[str, Any]]) -> Encoded:
    return pack(np.stack([result["embedding"] for result in results]), answer.encoding, medians=answer.medians)


def _binary(answer: Answer, accept: Accept) -> Reply:
    if answer.op != "embed":
        return encode_error(RequestError(f"{answer.op} replies in JSON only, not in {accept}", 406))
    encoded = _packed(answer, answer.results)
    shape = ",".join(map(str, encoded.values.shape))
    headers = {"x-release": answer.release, "x-shape": shape, "x-dtype": encoded.values.dtype.name}
    if accept == RAW:
        return Reply(200, encoded.values.tobytes(), RAW, headers)
    file = io.BytesIO()
    np.save(file, encoded.values, allow_pickle=False)
    return Reply(200, file.getvalue(), NPY, headers)


def _request(
    options: Mapping[str, str], path: str, body: Body, images: list[bytes], *, asked: str | None = None
) -> Request:
    texts = [*([body.image] if body.image is not None else []), *body.images]
    ids = [options["id"]] if "id" in options else []
    ids += [*([body.id] if body.id is not None else []), *body.ids]
    vectors = [*([body.vector] if body.vector is not None else []), *body.vectors]
    k = _whole("k", options["k"]) if "k" in options else body.k
    encoding = options.get("encoding_format") or body.encoding_format or asked or "float"
    op = _op(options.get("op") or body.op or path.strip("/") or "embed")
    return Request(
        op=op,
        images=(*images, *(_from_base64(at, text) for at, text in enumerate(texts))),
        ids=tuple(ids),
        vectors=tuple(_vector(vector) for vector in vectors),
        k=k if k is not None else 10,
        encoding=_encoding(encoding, op),
    )


def _encoding(name: str, op: Op) -> Encoding:
    if name not in ENCODINGS:
        raise RequestError(f"encoding_format is {name!r}; it must be one of {', '.join(ENCODINGS)}")
    if op != "embed" and name != "float":
        raise RequestError(f"encoding_format is {name!r}, but {op} replies without embeddings; only embed takes it")
    return name


def _op(name: str) -> Op:
    if name not in OPS:
        raise RequestError(f"op is {name!r}; it must be one of {', '.join(OPS)}")
    return name


def _accept(header: str) -> Accept:
    asked = [part.split(";")[0].strip().lower() for part in header.split(",")]
    for kind in asked:
        if kind in (JSON, NPY, RAW):
            return cast(Accept, kind)
        if kind in _ANY:
            return JSON
    raise RequestError(f"Accept is {header!r}; replies come as {JSON}, {NPY} or {RAW}", 406)


def _parameter(header: str, name: str) -> str | None:
    """A parameter of the first content type that has it: `application/octet-stream; encoding_format=int8`."""
    for part in header.replace(",", ";").split(";"):
        key, _, value = part.strip().partition("=")
        if key.lower() == name and value:
            return value.strip('"').lower()
    return None


def _is_file(name: str, headers: Mapping[str, Any]) -> bool:
    """A multipart file has a content type; a text field and a query parameter have none."""
    of_field = headers.get(name)
    return isinstance(of_field, dict) and bool(of_field.get("content-type"))


def _is_json(name: str, value: Any, headers: Mapping[str, Any], plain: Mapping[str, str]) -> bool:
    if isinstance(value, dict | list):  # TorchServe decoded it already
        return True
    of_field = headers.get(name)
    kind = of_field.get("content-type") if isinstance(of_field, dict) else None
    return str(kind or plain.get("content-type", "")).split(";")[0].strip().lower() == JSON


def _json(value: Any) -> Body:
    try:
        if isinstance(value, bytes | bytearray | str):
            return msgspec.json.decode(bytes(value) if not isinstance(value, str) else value, type=Body)
        return msgspec.convert(value, Body)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
        raise RequestError(f"the JSON body can't be read: {error}") from error


def _from_base64(position: int, text: str) -> bytes:
    if text.startswith("data:"):
        head, comma, text = text.partition(",")
        if not comma or not head.endswith(";base64"):
            raise RequestError(f"image {position} is a data URI without ';base64,'")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise RequestError(f"image {position} is no valid base64: {error}") from error


def _vector(numbers: list[float]) -> NDArray[np.float32]:
    return np.asarray(numbers, np.float32)


def _bytes(name: str, value: Any) -> bytes:
    if isinstance(value, bytes | bytearray):
        return bytes(value)
    raise RequestError(f"field {name!r} is text; send an image file, or one of {', '.join(_OPTIONS)}")


def _text(name: str, value: Any) -> str:
    try:
        return value if isinstance(value, str) else bytes(value).decode()
    except (UnicodeDecodeError, TypeError, ValueError) as error:
        raise RequestError(f"{name} must be text") from error


def _whole(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise RequestError(f"{name} is {text!r}; it must be a whole number") from None
