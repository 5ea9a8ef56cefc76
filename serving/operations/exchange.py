"""One request on its way to its answer: what each step of the engine finds out stands beside it."""

from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from serving.collection.catalogue.filters import EVERYTHING, Filter
from serving.inference.embedder import Embedded
from serving.protocol.messages import Answer, RequestError
from serving.protocol.operations import Operation, Request, SearchRequest, operation_of

R = TypeVar("R", bound=Request)


@dataclass(eq=False)
class Exchange(Generic[R]):
    """A request, and step by step its filter, its images' embeddings, its searches' results, and its answer.

    `embedded` has an entry for each of the request's `files`, and `found` one for each of its queries.
    """

    request: R
    where: Filter | None = None
    embedded: list[Embedded] = field(default_factory=list)
    found: list[Any] = field(default_factory=list)
    answer: Answer | RequestError | None = None

    @property
    def operation(self) -> Operation:
        """The row of its operation."""
        return operation_of(self.request)

    @property
    def searches(self) -> bool:
        """Whether neighbours are looked for."""
        return isinstance(self.request, SearchRequest) or "vote" in self.request.included

    @property
    def reads_collection(self) -> bool:
        """Whether its answer depends on what the collection holds."""
        return self.operation.needs_collection or self.searches

    @property
    def needs_vectors(self) -> bool:
        """Whether every write acknowledged before must have its vector first."""
        return self.operation.needs_vectors or self.searches or "vector" in self.request.included

    @property
    def selection(self) -> Filter:
        """The filter, or the one that means everything."""
        return self.where if self.where is not None else EVERYTHING
