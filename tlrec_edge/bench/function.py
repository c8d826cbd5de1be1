"""A user's own system under test: a Python function, or an object with a method ``answer``."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from types import AsyncGeneratorType, CoroutineType, GeneratorType, NoneType
from typing import Any

from tlrec_edge.bench.system import Request, System
from tlrec_edge.errors import DataError

_NO_ANSWER = {NoneType, CoroutineType, GeneratorType, AsyncGeneratorType}
"""Types that a function returns if it has not done the work: nothing, or a promise of it."""


@dataclass(frozen=True)
class FunctionSource:
    """``package.module:function``, a function of one Request or an object with ``answer``.

    The current folder is searched for the module first, as ``python -m`` does. What the module
    prints goes to stderr.
    """

    target: str

    @property
    def name(self) -> str:
        """The target."""
        return self.target

    @contextmanager
    def open(self) -> Iterator[System]:
        """Yield the system, which raises DataError for every error in it.

        Raises DataError if the target can't be imported or called.
        """
        with redirect_stdout(sys.stderr):
            found = self._import()
            answer_many = getattr(found, "answer", None)
            if callable(answer_many):
                yield _ManyAtOnce(self.target, answer_many)
            elif callable(found):
                yield _OneByOne(self.target, found)
            else:
                raise DataError(
                    f"{self.target} is neither a function of one request nor an object with a "
                    "method `answer`"
                )

    def _import(self) -> Any:
        module, _, names = self.target.partition(":")
        if not module or not names:
            raise DataError(f"{self.target!r} names no function: write package.module:function")
        here = os.getcwd()
        sys.path.insert(0, here)
        try:
            found: Any = importlib.import_module(module)
            for name in names.split("."):
                found = getattr(found, name)
        except (ImportError, AttributeError) as error:
            raise DataError(
                f"{self.target} cannot be imported: {error}; write package.module:function"
            ) from error
        except (Exception, SystemExit) as error:
            raise DataError(f"{self.target} cannot be imported: {_one_line(error)}") from error
        finally:
            if here in sys.path:
                sys.path.remove(here)
        return found


@dataclass(frozen=True)
class _ManyAtOnce:
    """An object that answers several requests in one call."""

    name: str
    function: Callable[[Any], object]

    def answer(self, requests: Sequence[Request]) -> None:
        self._call(requests)

    def _call(self, requests: object) -> None:
        try:
            found = self.function(requests)
        except (Exception, SystemExit) as error:
            raise DataError(f"{self.name} failed on a request: {_one_line(error)}") from error
        if type(found) in _NO_ANSWER:
            if isinstance(found, CoroutineType):
                found.close()  # otherwise Python warns about it after our message
            what = "nothing" if found is None else f"a {type(found).__name__}, which is not run"
            raise DataError(
                f"{self.name} returned {what}: return the scores or items of the request"
            )


class _OneByOne(_ManyAtOnce):
    """A function of one request."""

    def answer(self, requests: Sequence[Request]) -> None:
        for request in requests:
            self._call(request)


def _one_line(error: BaseException) -> str:
    """Return an error in one line, with the last place of its traceback."""
    last = traceback.extract_tb(error.__traceback__)[-1:]
    location = "".join(
        f" ({os.path.basename(frame.filename)}, line {frame.lineno})" for frame in last
    )
    return f"{type(error).__name__}: {error}{location}"
