"""One list of arguments for two functions that take the same."""

import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def taking(
    source: Callable[Arguments, Any],
) -> Callable[[Callable[..., Result]], Callable[Arguments, Result]]:
    """Give a function the arguments of ``source``, for readers, help and type checkers.

    >>> def scale(x: float, *, by: float = 2.0) -> float: return x * by
    >>> @taking(scale)
    ... def told(*given, **named) -> str: return f"{scale(*given, **named):g}"
    >>> told(3, by=4), str(inspect.signature(told))
    ('12', '(x: float, *, by: float = 2.0) -> str')
    """

    def given(function: Callable[..., Result]) -> Callable[Arguments, Result]:
        wanted = inspect.signature(source)
        own = inspect.signature(function).return_annotation
        function.__signature__ = wanted.replace(return_annotation=own)  # pyright: ignore[reportFunctionMemberAccess]
        return function

    return given
