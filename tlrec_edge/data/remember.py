"""Compute what depends on a task once: later calls, of any command, read it from a cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from tlrec_edge.core.result_cache import Arrays, content_key
from tlrec_edge.data.task import Task
from tlrec_edge.version import VERSION

Result = TypeVar("Result")


def remember(
    task: Task,
    what: str,
    inputs: tuple[Any, ...],
    compute: Callable[[], Result],
    to_arrays: Callable[[Result], Arrays],
    from_arrays: Callable[[Arrays], Result],
    is_complete: Callable[[], bool] = lambda: True,
) -> Result:
    """Return ``compute()``, or what it returned before for the same inputs.

    Args:
        task: The task that the result depends on; its ``cache`` holds the results, None for none.
        what: Name of the computation.
        inputs: All else that the result depends on: JSON values and arrays.
        compute: Computes the result.
        to_arrays: Turns a result into the arrays that are stored.
        from_arrays: Turns the arrays into the result.
        is_complete: Returns whether the result just computed may be stored: one that a time budget
            cut short may not.
    """
    if task.cache is None:
        return compute()
    key = content_key(VERSION, what, task.digest, *inputs)
    stored = task.cache.get(key)
    if stored is not None:
        try:
            return from_arrays(stored)
        except (KeyError, ValueError, TypeError, IndexError):
            pass  # the file is damaged, or another program wrote it: compute it again
    result = compute()
    if is_complete():
        task.cache.put(key, to_arrays(result))
    return result
