"""An operation as a method of a client: one that waits for its result, or one that is awaited.

A client carries steps out by its method `carry_out`.
"""

import functools
import inspect
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, Concatenate, ParamSpec, TypeVar, get_args

from serving.client.calls import Call, Page, Result, Steps, json_reply

P = ParamSpec("P")
Item = dict[str, Any]
_Method = TypeVar("_Method", bound=Callable[..., Any])


def now(operation: Callable[P, Steps[Result]]) -> Callable[Concatenate[Any, P], Result]:
    """A method that returns the operation's result."""

    def method(self: Any, /, *arguments: P.args, **options: P.kwargs) -> Result:
        return self.carry_out(operation(*arguments, **options))  # type: ignore[no-any-return]

    return _described(method, operation)


def awaited(operation: Callable[P, Steps[Result]]) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, Result]]:
    """The same, to be awaited."""

    async def method(self: Any, /, *arguments: P.args, **options: P.kwargs) -> Result:
        return await self.carry_out(operation(*arguments, **options))  # type: ignore[no-any-return]

    return _described(method, operation)


def now_pages(operation: Callable[P, Page]) -> Callable[Concatenate[Any, P], Iterator[Item]]:
    """A method that iterates over the items of every page, each asked for when it is needed."""

    def method(self: Any, /, *arguments: P.args, **options: P.kwargs) -> Iterator[Item]:
        call, cursor = operation(*arguments, **options), None
        while True:
            page = self.carry_out(json_reply(call(cursor)))
            yield from page["items"]
            if (cursor := page["cursor"]) is None:
                return

    return _described(method, operation)


def awaited_pages(operation: Callable[P, Page]) -> Callable[Concatenate[Any, P], AsyncIterator[Item]]:
    """The same, for `async for`."""

    async def method(self: Any, /, *arguments: P.args, **options: P.kwargs) -> AsyncIterator[Item]:
        call, cursor = operation(*arguments, **options), None
        while True:
            page = await self.carry_out(json_reply(call(cursor)))
            for item in page["items"]:
                yield item
            if (cursor := page["cursor"]) is None:
                return

    return _described(method, operation)


def _described(method: _Method, operation: Callable[..., Any]) -> _Method:
    """The method with the name, the words and the signature of its operation, as `help` shows them."""
    functools.update_wrapper(method, operation)
    signature = inspect.signature(operation)
    itself = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    *_, result = get_args(signature.return_annotation)
    returns = signature.empty if result is Call else result  # of a `Page`, or of `Steps`
    shown = signature.replace(parameters=[itself, *signature.parameters.values()], return_annotation=returns)
    method.__signature__ = shown  # type: ignore[attr-defined]
    return method
