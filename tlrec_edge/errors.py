"""The one error tree; a message names the thing, what was expected and the remedy.

TlrecError
├── DataError         a table, a dataset or a schema cannot be used
│   └── ArgumentError an argument has a value that is not allowed; also a ValueError
├── ModelError        a model folder cannot be read or does not fit the dataset
├── LeakError         what a model is asked was among what it learned from
├── TrainingError     training diverged (NaN loss) or had nothing to learn from
├── ExportError       a gate refused the export
├── BudgetError       no compressed model fits the quality budget
├── RegressionError   a figure is worse than its baseline allows
├── BundleError       a bundle is missing, cut, altered or too new
├── UnknownIdError    an id the bundle does not know, under policy "error"
└── MissingExtraError an optional dependency is not installed
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any


class TlrecError(Exception):
    """Root of every error this package raises on purpose."""


class DataError(TlrecError):
    """A table, a dataset or a schema cannot be used."""


class ArgumentError(DataError, ValueError):
    """An argument of a public function has a value that is not allowed."""


class ModelError(TlrecError):
    """A model folder cannot be read or does not fit the dataset."""


class LeakError(TlrecError):
    """What a model is asked, or what came after, was among what it learned from."""


class TrainingError(TlrecError):
    """Training diverged or had nothing to learn from."""


class ExportError(TlrecError):
    """A gate refused the export. ``why``: which and why, without the ``waiver`` that only ``export`` knows."""

    def __init__(self, why: str, waiver: str = "") -> None:
        super().__init__(f"{why} ({waiver})" if waiver else why)
        self.why = why


class BudgetError(TlrecError):
    """No compressed model fits the quality budget. ``points``: all that was tried, as plain data, each with why not."""

    def __init__(self, message: str, points: Sequence[Mapping[str, Any]] = ()) -> None:
        super().__init__(message)
        self.points = tuple(points)


class RegressionError(TlrecError):
    """A figure is worse than its baseline allows."""


class BundleError(TlrecError):
    """A bundle is missing, cut, altered or of an unknown format version."""


class UnknownIdError(TlrecError):
    """An id is not in the bundle and the policy for unknown ids is ``error``."""


class MissingExtraError(TlrecError):
    """An optional dependency is not installed; the message names the extra."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs the extra [{extra}]: pip install 'tlrec-edge[{extra}]'")
