"""Every address of the service, in one table."""

from serving.gateway import earlier, health, interpreter
from serving.gateway.collections import collections, snapshot_job
from serving.gateway.items import CREATED, IDS, ITEMS_OR_PAGE, PATCH_ITEM, PUT_ITEM
from serving.gateway.labels import ABOUT_LABELS, Labelling, labels
from serving.gateway.openapi import described
from serving.gateway.operations import operation_route
from serving.gateway.replies import Collections, Items, OneJob, Page
from serving.gateway.routes import Route

_HERE = "/v1/collections/{collection}"
_ITEM = f"{_HERE}/items/{{id}}"
_SNAPSHOT = f"{_HERE}/snapshots/{{name}}"

IMAGES = (
    operation_route("GET", "/v1/describe", "describe", "What is being served, and its limits."),
    operation_route("POST", "/v1/embed", "embed", "Embeddings of image files."),
    operation_route("POST", "/v1/classify", "classify", "The linear probe's labels of image files."),
    operation_route("POST", "/v1/search", "search", "Neighbours in the collection `default`."),
)

ITEMS = (
    Route(
        *("GET", f"{_HERE}/items", ITEMS_OR_PAGE, "read", "A page of items, or those whose ids the query has."),
        replies=(Page, Items),
        about={"parameters": [IDS]},
    ),
    operation_route("POST", f"{_HERE}/items", "upsert", "Store items; an id that exists is replaced."),
    operation_route("PATCH", f"{_HERE}/items", "update", "Change label and metadata of items."),
    operation_route("DELETE", f"{_HERE}/items", "delete", "Delete items by id or by a filter."),
    operation_route("POST", f"{_HERE}/items/get", "get", "Items by id."),
    operation_route("POST", f"{_HERE}/items/list", "list", "A page of items, for filters too long for an address."),
    operation_route("POST", f"{_HERE}/items/delete", "delete", "Delete items, for clients whose DELETE has no body."),
    operation_route("GET", _ITEM, "get", "An item.", single=True),
    Route("PUT", _ITEM, PUT_ITEM, "write", "Store an item with its image.", about=CREATED),
    Route("PATCH", _ITEM, PATCH_ITEM, "write", "Change label and metadata of an item, by a merge patch of them."),
    operation_route("DELETE", _ITEM, "delete", "Delete an item.", single=True),
    operation_route("GET", f"{_ITEM}/image", "get", "The image file of an item.", picture=True),
    operation_route(
        "GET", f"{_ITEM}/thumbnail", "get", "A small JPEG of it.", picture=True, said={"include": ["thumbnail"]}
    ),
    Route(
        *("POST", f"{_HERE}/labels", labels, "write", "Labels of many items, from a CSV or TSV table."),
        replies=(Labelling,),
        about=ABOUT_LABELS,
    ),
)

COLLECTION = (
    Route("GET", "/v1/collections", collections, "read", "The collections here.", replies=(Collections,)),
    operation_route("GET", _HERE, "stats", "What the collection holds."),
    operation_route("GET", f"{_HERE}/stats", "stats", "The same."),
    operation_route("POST", f"{_HERE}/search", "search", "Neighbours of images, items, vectors and examples."),
    *(
        operation_route(method, f"{_HERE}/{name}", name, summary)
        for method in ("GET", "POST")
        for name, summary in (
            ("count", "How many items a filter matches."),
            ("facets", "How often each value of a key occurs."),
            ("sample", "Random items."),
            ("duplicates", "Items that have near-duplicates, with them."),
        )
    ),
    operation_route("GET", f"{_HERE}/snapshots", "snapshots", "Saved snapshots, and the latest jobs."),
    Route(
        *("GET", f"{_HERE}/snapshots/jobs/{{job}}", snapshot_job, "read", "A job that saves or restores a snapshot."),
        replies=(OneJob,),
    ),
    operation_route("PUT", _SNAPSHOT, "snapshot", "Begin to save the collection."),
    operation_route("DELETE", _SNAPSHOT, "remove_snapshot", "Remove a snapshot."),
    operation_route("POST", f"{_SNAPSHOT}/restore", "restore", "Begin to restore a snapshot."),
)

ROUTES = described(
    (*IMAGES, *COLLECTION, *ITEMS, *health.ROUTES, *interpreter.ROUTES, *earlier.ROUTES),
)
