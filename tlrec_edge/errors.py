"""All errors that this package raises on purpose.

Each is of the kind whose remedy it needs:

- ArgumentError: an argument has a value that its documentation does not allow. Correct the call.
- DataError: the user's data cannot be used: a table, a history, the features of an item.
- BundleError, ModelError: the files of a bundle or a model are missing, damaged or do not fit.
- The others say that a command stopped for a reason that is not in its input alone.

A config dataclass raises a plain ValueError for a value it does not allow. Any other exception is a
bug: this package never turns its own bugs into errors of this tree. A message states the problem,
its place and the remedy.

TlrecError
├── DataError         data cannot be used
│   └── ArgumentError an argument has a value that is not allowed; also a ValueError
├── ModelError        a model folder cannot be read or does not fit the dataset
├── LeakError         a model was trained on the rows that it would be evaluated on
├── TrainingError     training diverged (NaN loss) or had no data to learn from
├── ExportError       a gate refused the export
├── BudgetError       no compressed model fits the quality budget
├── RegressionError   a figure is worse than its baseline allows
├── BundleError       a bundle is missing, incomplete, altered or of an unknown format version
├── UnknownIdError    an id is not in the bundle, under the policy "error"
└── MissingExtraError an optional dependency is not installed
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any


class TlrecError(Exception):
    """Root of every error that this package raises on purpose."""


class DataError(TlrecError):
    """A table, a dataset, a schema or a history cannot be used."""


class ArgumentError(DataError, ValueError):
    """An argument of a public function has a value that is not allowed."""


class ModelError(TlrecError):
    """A model folder cannot be read or does not fit the dataset."""


class LeakError(TlrecError):
    """A model was trained on the rows that it would be evaluated on, or on later ones."""


class TrainingError(TlrecError):
    """Training diverged or had no data to learn from."""


class ExportError(TlrecError):
    """A gate refused the export.

    Attributes:
        why: The gate and its reason, without the advice how to waive it, which only ``export`` can
            give.
    """

    def __init__(self, why: str, waiver: str = "") -> None:
        super().__init__(f"{why} ({waiver})" if waiver else why)
        self.why = why


class BudgetError(TlrecError):
    """No compressed model fits the quality budget.

    Attributes:
        points: Every candidate model as plain data, with the reason why it was rejected.
    """

    def __init__(self, message: str, points: Sequence[Mapping[str, Any]] = ()) -> None:
        super().__init__(message)
        self.points = tuple(points)


class RegressionError(TlrecError):
    """A figure is worse than its baseline allows."""


class BundleError(TlrecError):
    """A bundle is missing, incomplete, altered or of an unknown format version."""


class UnknownIdError(TlrecError):
    """An id is not in the bundle, and the policy for unknown ids is ``error``."""


class MissingExtraError(TlrecError):
    """An optional dependency is not installed; the message names the extra to install."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs the extra [{extra}]: pip install 'tlrec-edge[{extra}]'")
