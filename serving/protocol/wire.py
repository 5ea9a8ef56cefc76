"""Requests and replies as HTTP carries them: JSON, multipart, raw image bytes; JSON, npy, raw numbers and pictures.

`parse` takes what TorchServe hands a handler (fields and headers of one request), `encode` gives back status,
content type, headers and bytes. Nothing is ever unpickled.
Left out: TorchServe itself (`serving.torchserve.handler`), what a request may say (`body`, `asking`, beside this file),
and what the operations do (`serving.engine`).
"""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, cast

import numpy as np
import orjson

from core.images.decode import ImageError
from serving.protocol.asking import request_of
from serving.protocol.body import OPTIONS, Body, is_option, read_json, with_options
from serving.protocol.encodings import Encoded, pack
from serving.protocol.messages import PER_ITEM, Answer, Failure, Picture, Request, RequestError

Accept = Literal["application/json", "application/x-npy", "application/octet-stream", "image/*"]
JSON: Final = "application/json"
NPY: Final = "application/x-npy"
RAW: Final = "application/octet-stream"
PICTURE: Final = "image/*"
_JSON_OPTIONS = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_PASSTHROUGH_DATACLASS
_ANY = ("*/*", "application/*", "")


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
    body, files = Body(), {}
    for name, value in fields.items():
        if is_option(name):
            continue
        if _is_json(name, value, headers, plain):
            body = read_json(value)
        elif name == "body" and not len(value):
            continue
        elif name == "body" or _is_file(name, headers):
            files[name] = _bytes(name, value)
        else:
            raise RequestError(f"{name!r} is no option; the options are {', '.join(OPTIONS)}, and an image is a file")
    body = with_options(body, {name: value for name, value in fields.items() if is_option(name)})
    request = request_of(
        body, files, path=plain.get("url_path", ""), encoding=_parameter(plain.get("accept", ""), "encoding_format")
    )
    if accept == PICTURE and "thumbnail" not in request.include:
        request = replace(request, include=request.include | {"image"})
    return request, accept


def encode(answer: Answer | Failure, accept: Accept = JSON) -> Reply:
    """Write one reply. The whole is an error only if all of it failed, or no JSON can carry the part."""
    if not isinstance(answer, Answer):
        return encode_error(answer)
    failures = [result for result in answer.results if isinstance(result, RequestError | ImageError)]
    if failures and (len(failures) == len(answer.results) or accept != JSON):
        return encode_error(failures[0])
    if accept != JSON:
        return _picture(answer) if accept == PICTURE else _binary(answer, accept)
    content: dict[str, Any] = {"release": answer.release, **answer.more}
    if answer.encoding != "float":
        content["encoding_format"] = answer.encoding
    if answer.op in PER_ITEM:
        content["results"] = [
            _error(result) if isinstance(result, RequestError | ImageError) else _written(answer, result)
            for result in answer.results
        ]
    return Reply(200, orjson.dumps(content, default=_base64, option=_JSON_OPTIONS))


def encode_error(error: Failure) -> Reply:
    """An error as JSON, whatever was asked for."""
    return Reply(error.status, orjson.dumps(_error(error)))


def _error(error: Failure) -> dict[str, Any]:
    return {"error": {"status": error.status, "message": str(error)}}


def _base64(value: Any) -> str:
    """What JSON has no form for: a picture."""
    if isinstance(value, Picture):
        return base64.b64encode(value.content).decode()
    raise TypeError


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


def _picture(answer: Answer) -> Reply:
    """The picture of the one item that was asked for; its type is of those that are read here, never a page's."""
    if answer.op != "get" or len(answer.results) != 1:
        return encode_error(
            RequestError("a picture is the reply to get with one id; anything else replies in JSON", 406)
        )
    (result,) = answer.results
    picture: Picture = result.get("thumbnail") or result["image"]
    return Reply(200, picture.content, picture.media_type, {"x-content-type-options": "nosniff"})


def _accept(header: str) -> Accept:
    asked = [part.split(";")[0].strip().lower() for part in header.split(",")]
    if asked[0].startswith("image/"):  # as a browser asks for <img>; for a page it names images last
        return PICTURE
    for kind in asked:
        if kind in (JSON, NPY, RAW):
            return cast(Accept, kind)
        if kind in _ANY:
            return JSON
    raise RequestError(f"Accept is {header!r}; replies come as {JSON}, {NPY}, {RAW} or {PICTURE}", 406)


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


def _bytes(name: str, value: Any) -> bytes:
    if isinstance(value, bytes | bytearray):
        return bytes(value)
    raise RequestError(f"field {name!r} is text; send an image file, or one of {', '.join(OPTIONS)}")
