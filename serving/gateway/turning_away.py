"""Requests whose heads alone say that they bring images: in overload their bodies are not even parsed."""

from serving.gateway.call import Call

_EMBEDDING = frozenset({"embed", "embeddings", "infer"})  # the last segments of routes that always embed
_SURELY_FILES = 1 << 20  # bytes of a form; a search by id is no such form
SOON_READ = 1 << 20  # bytes of a body that are read, so that the connection can be kept


def brings_images(call: Call) -> bool:
    """Whether a request will wait behind images; False where only its body can tell."""
    kind = call.headers.get("content-type", "")
    if kind.startswith("image/"):
        return True
    if call.method == "POST" and call.route.rpartition("/")[2] in _EMBEDDING:
        return True
    return kind.startswith("multipart/") and (length_of(call) or 0) > _SURELY_FILES


def length_of(call: Call) -> int | None:
    """How long the body is, in bytes as sent; None where its head does not say it."""
    length = call.headers.get("content-length", "")
    return int(length) if length.isdecimal() else None


async def pass_over(call: Call) -> None:
    """Read a body that nobody wants, if it is short: then the connection need not be closed, and the reply arrives."""
    length = length_of(call)
    if length is not None and length <= SOON_READ and "content-encoding" not in call.headers:
        await call.body()
