"""Which collections there are, and what became of the jobs of one."""

import orjson

from serving.gateway.call import Call
from serving.gateway.operations import check_collection
from serving.gateway.service import Service
from serving.protocol.agreed import DEFAULT_COLLECTION
from serving.protocol.messages import Answer, RequestError
from serving.protocol.operations import CountRequest, Request, SnapshotsRequest
from serving.protocol.wire import Reply

_NONE_TO_SEE = (403, 409)  # the key is for another collection; this server has none


async def collections(service: Service, call: Call) -> Reply:
    """Every collection that the caller may see, with how many items it has."""
    try:
        answer = await _answer(service, call, CountRequest())
    except RequestError as error:
        if error.status not in _NONE_TO_SEE:
            raise
        return Reply(200, b'{"collections":[]}')
    found = {"name": DEFAULT_COLLECTION, "items": answer.more["count"]}
    return Reply(200, orjson.dumps({"collections": [found]}))


async def snapshot_job(service: Service, call: Call) -> Reply:
    """One job that saves or restores a snapshot."""
    check_collection(call)
    answer = await _answer(service, call, SnapshotsRequest())
    number = call.params["job"]
    job = next((one for one in answer.more["jobs"] if one["id"] == number), None)
    if job is None:
        raise RequestError(f"there is no job {number!r:.80} on record; GET .../snapshots lists the latest ones", 404)
    return Reply(200, orjson.dumps({"release": answer.release, "job": job}))


async def _answer(service: Service, call: Call, request: Request) -> Answer:
    answer = await service.ask(call, request)
    if isinstance(answer, RequestError):
        raise answer
    return answer
