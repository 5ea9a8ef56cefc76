"""Does a server give the right embeddings? It is asked before it is timed: a wrong answer can be had at any speed."""

from collections.abc import Sequence

import httpx
import numpy as np
from numpy.typing import NDArray

from benchmarks.serving.ceiling_worker import decode_all
from benchmarks.serving.requests_of import ACCEPT, Dialect, Reply
from benchmarks.serving.servers import Running
from benchmarks.serving.subjects import Subject
from serving.inference.runtime import open_runtime
from serving.torchserve.settings import HOST

IMAGES = 8
SAME_FILE, OTHER_PRECISION = 0.999, 0.99  # the least cosine: int8 against float32 is another precision
UNJUDGED = 0.9  # the same of an int8 file that no gate has passed: random weights, measured for speed only


class WrongAnswers(RuntimeError):
    """A server whose embeddings are not those of the file that it is to run."""


def reference(subject: Subject) -> NDArray[np.float32]:
    """Embeddings (8, D) of the first images, in this process."""
    runtime = open_runtime(subject.file)
    return runtime(decode_all(subject.jpegs[:IMAGES], subject.size)).embedding


def check(running: Running, subject: Subject, *, wanted: NDArray[np.float32], name: str) -> float:
    """The least cosine over every kind of request that the server takes; raises `WrongAnswers`."""
    dialect, images = running.dialect, subject.jpegs[:IMAGES]
    least = _least(dialect, subject)
    worst = 1.0
    for reply in dialect.replies:
        for count in (1, len(images)) if dialect.several else (1,):
            groups = [images[at : at + count] for at in range(0, len(images), count)]
            found = np.concatenate([ask(running, group, reply=reply) for group in groups])
            cosine = float((found * wanted).sum(axis=1).min())
            if not cosine >= least:
                raise WrongAnswers(
                    f"{name}, {subject.size} px, {reply}, {count} images a request: the least cosine with the "
                    f"in-process embeddings is {cosine:.5f}, below {least}; speed is not measured on wrong answers"
                )
            worst = min(worst, cosine)
    return worst


def _least(dialect: Dialect, subject: Subject) -> float:
    if dialect.several or subject.form != "int8":
        return SAME_FILE
    judged = subject.release.manifest.gates.get("int8", {}).get("passed", True)
    return OTHER_PRECISION if judged else UNJUDGED


def ask(running: Running, images: Sequence[bytes], *, reply: Reply) -> NDArray[np.float32]:
    """The embeddings (N, D) of one request."""
    body = running.dialect.write(images)
    headers = {"content-type": body.content_type, "accept": ACCEPT[reply]}
    address = f"http://{HOST}:{running.port}{running.dialect.path}"
    answer = httpx.post(address, content=body.content, headers=headers, timeout=60.0, trust_env=False)
    if answer.status_code != 200:
        raise WrongAnswers(f"{address} answered {answer.status_code}: {answer.text[:300]}")
    rows = running.dialect.read(answer.content, reply).reshape(len(images), -1)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)
