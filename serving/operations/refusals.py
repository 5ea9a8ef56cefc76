"""Why a request can't be answered at all, told before any work is done on it.

Left out: what only the work can show, as a broken image or an id that is not there (`serving.engine`).
"""

from dataclasses import dataclass

from serving.protocol.agreed import MAX_HEAVY, MAX_IDS, MAX_IMAGES, MAX_K, MAX_LIMIT, MAX_OFFSET
from serving.protocol.messages import (
    INCLUDES,
    OF_A_COLLECTION,
    OF_NAMED_SNAPSHOT,
    OPS,
    Op,
    Request,
    RequestError,
)

_TAKES_FILTER = ("search", "delete", "list", "count", "duplicates")
_TAKES_INCLUDE = {
    "classify": {"vote"},
    "search": {"metadata", "vector", "thumbnail", "vote"},
    "get": {"metadata", "vector", "thumbnail", "image"},
    "list": {"metadata", "vector", "thumbnail"},
    "stats": {"drift"},
}
_OF_NOTHING = ("describe", "list", "count", "stats", "duplicates", "snapshot", "snapshots", "restore")


@dataclass(frozen=True)
class Abilities:
    """What a server has that operations need: the release's title, labels and medians; a collection."""

    title: str
    labels: bool
    medians: bool
    collection: bool

    @property
    def operations(self) -> list[Op]:
        """What can be asked of it."""
        return [op for op in OPS if _unable(Request(op), self) is None]


def refusal_of(request: Request, abilities: Abilities) -> RequestError | None:
    """The first reason, if there is one."""
    for check in (_unable, _misplaced, _missing, _too_many, _out_of_range):
        if (refusal := check(request, abilities)) is not None:
            return refusal
    return None


def _unable(request: Request, abilities: Abilities) -> RequestError | None:
    if request.op == "classify" and not abilities.labels:
        return RequestError(f"release {abilities.title} has no linear probe, because its images had no labels", 409)
    if request.op in OF_A_COLLECTION and not abilities.collection:
        return RequestError(f"the server was started without a collection: there is nothing to {request.op}", 409)
    if "vote" in request.include and not abilities.collection:
        return RequestError("the server was started without a collection: there are no neighbours to vote", 409)
    if request.encoding == "binary" and not abilities.medians:
        return RequestError(
            f"release {abilities.title} has no medians, which binary embeddings need: publish it again", 409
        )
    return None


def _misplaced(request: Request, abilities: Abilities) -> RequestError | None:
    """What this operation does not take is refused: left out silently, it would seem to have been heeded."""
    op = request.op
    if op not in ("search", "get", "delete") and (request.ids or request.vectors or request.mix):
        return RequestError(f"{op} takes {_takes(op)}; ids and vectors are for search")
    if op in ("get", "delete") and (request.images or request.vectors or request.mix):
        return RequestError(f"{op} takes ids, no images and no vectors")
    if op in _OF_NOTHING and request.images:
        return RequestError(f"{op} takes no images")
    if request.where is not None and op not in _TAKES_FILTER:
        return RequestError(f"{op} takes no filter; it is for {', '.join(_TAKES_FILTER)}")
    if wrong := sorted(request.include - _TAKES_INCLUDE.get(op, set())):
        accepted = [name for name in INCLUDES if name in _TAKES_INCLUDE.get(op, set())]
        return RequestError(f"include has {wrong[0]!r}; {op} accepts {', '.join(accepted) or 'nothing'} there")
    given = {"offset": request.offset, "exact": request.exact, "group_by": request.group_by}
    if op != "search" and (name := next((name for name, value in given.items() if value), None)):
        return RequestError(f"{op} takes no {name}; it is for search")
    if request.name is not None and op not in OF_NAMED_SNAPSHOT:
        return RequestError(f"{op} takes no name; it is for {' and '.join(OF_NAMED_SNAPSHOT)}")
    if request.replace and op != "restore":
        return RequestError(f"{op} takes no replace; it is for restore")
    return None


def _missing(request: Request, abilities: Abilities) -> RequestError | None:
    if request.op in ("embed", "classify") and not request.images:
        return RequestError(f"{request.op} needs at least one image")
    if request.op == "search" and not (request.images or request.ids or request.vectors or request.mix):
        return RequestError("search needs at least one image, id or vector, or positives")
    if request.op == "get" and not request.ids:
        return RequestError("get needs at least one id")
    if request.op == "delete" and bool(request.ids) == (request.where is not None):
        return RequestError("delete needs either ids or a filter")
    if request.op in OF_NAMED_SNAPSHOT and not request.name:
        return RequestError(f"{request.op} needs a name, the snapshot's")
    return None


def _too_many(request: Request, abilities: Abilities) -> RequestError | None:
    of_mix = len(request.mix.examples) if request.mix is not None else 0
    ids = 0 if request.op in ("get", "delete") else len(request.ids)
    asked = len(request.images) + ids + len(request.vectors) + of_mix + len(request.items)
    if asked > MAX_IMAGES:
        return RequestError(f"{asked} images, ids and vectors in one request; at most {MAX_IMAGES}", 413)
    if len(request.ids) > MAX_IDS:
        return RequestError(f"{len(request.ids)} ids in one request; at most {MAX_IDS}", 413)
    results = {"search": request.k * asked, "get": len(request.ids), "list": request.limit}.get(request.op, 0)
    if request.include & {"vector", "thumbnail", "image"} and results > MAX_HEAVY:
        return RequestError(f"vectors or pictures of up to {results} items in one reply; at most {MAX_HEAVY}", 413)
    return None


def _out_of_range(request: Request, abilities: Abilities) -> RequestError | None:
    limits: list[tuple[str, float, float, float]] = [
        ("k", request.k, 1, MAX_K),
        ("offset", request.offset, 0, MAX_OFFSET),
        ("limit", request.limit, 1, MAX_LIMIT),
        ("min_score", request.min_score or 0.0, -1, 1),
    ]
    for name, value, least, most in limits:
        if not least <= value <= most:
            return RequestError(f"{name} is {value}; it must be from {least} to {most}")
    return None


def _takes(op: Op) -> str:
    return "items" if op == "upsert" else "nothing of the sort" if op in _OF_NOTHING else "images"
