"""What TorchServe brings at once: one request of HTTP, or a frame of many from the gateway."""

import logging
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from serving.protocol.batches import fitting
from serving.protocol.frames import FRAME, Work, pack_answers, unpack_requests
from serving.protocol.messages import Answer, RequestError
from serving.protocol.operations import Request
from serving.protocol.wire import Call, Reply, encode, encode_error, parse
from serving.torchserve.parameters import Parameters, has_body, parts_of, plain_headers

Received = Parameters | Mapping[str, Any]  # one call, as `keep_all` hands it over or as TorchServe does
_LOG = logging.getLogger(__name__)


@dataclass(eq=False)
class Frame(Call):
    """A call that brings many requests, and wants their answers as they are."""

    framed: Sequence[Request] = ()
    begun: float = field(default_factory=time.time)
    clock: float = field(default_factory=time.perf_counter)
    answers: Sequence[Answer | RequestError] = ()

    @property
    def requests(self) -> Sequence[Request]:
        """Every request that it brings."""
        return self.framed

    def take(self, answers: Sequence[Answer | RequestError]) -> None:
        """Take the answers to its requests."""
        self.answers = fitting(self.framed, answers)


def call_of(received: Received, headers: Mapping[str, Any]) -> Call:
    """Read a call; raises nothing."""
    try:
        plain = plain_headers(headers)
        parts = parts_of(received, headers)
        if plain.get("content-type") == FRAME:
            (whole,) = parts
            asked = unpack_requests(whole.content)
            return Frame(framed=asked.requests, origins=asked.origins)
        return Call(*parse((), parts, headers=plain, posted=has_body(parts, plain)))
    except RequestError as error:
        return Call(answer=error)
    except Exception as error:
        _LOG.exception("a request could not be read")
        return Call(answer=RequestError(f"the request can't be read: {type(error).__name__}"))


def reply_to(call: Call) -> Reply:
    """The reply to an answered call; raises nothing."""
    try:
        if isinstance(call, Frame):
            work = Work(os.getpid(), call.begun, time.perf_counter() - call.clock)
            return Reply(200, pack_answers(call.answers, work=work), FRAME)
        assert call.answer is not None, "every request is answered"
        return encode(call.answer, call.media_type)
    except Exception as error:
        _LOG.exception("a reply could not be written")
        return encode_error(RequestError(f"internal error: {type(error).__name__}", 500))
