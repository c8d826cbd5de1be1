"""A reader's own system under test: a function, or an object that answers several requests, found by its name."""

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
"""What is returned where nothing was done, or is yet to be done by whoever awaits or iterates it."""


@dataclass(frozen=True)
class FunctionSource:
    """``package.module:function``: a function of one Request, or an object with the method ``answer`` of System.

    The module is looked for in the current folder first, as ``python -m`` does. What it prints goes to stderr.
    """

    target: str

    @property
    def name(self) -> str:
        return self.target

    @contextmanager
    def open(self) -> Iterator[System]:
        """Yield the system, whose errors are DataError. Raises DataError that says what could not be imported."""
        with redirect_stdout(sys.stderr):
            found = self._find()
            answer_many = getattr(found, "answer", None)
            if not callable(answer_many) and not callable(found):
                raise DataError(
                    f"{self.target} is neither a function of one request nor has it a method `answer`"
                )
            yield (
                _Answers(self.target, answer_many)
                if callable(answer_many)
                else _EachByFunction(self.target, found)
            )

    def _find(self) -> Any:
        module, _, names = self.target.partition(":")
        if not module or not names:
            raise DataError(f"{self.target!r} names no function; write package.module:function")
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
class _Answers:
    """An object that answers several requests in a call."""

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
                found.close()  # Python would warn of it, after our line
            what = "nothing" if found is None else f"a {type(found).__name__}, which is not run"
            raise DataError(
                f"{self.name} returned {what}; have it return the scores or the items of a request"
            )


class _EachByFunction(_Answers):
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
