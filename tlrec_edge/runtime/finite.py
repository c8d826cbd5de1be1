"""The last check of every answer: scores are numbers."""

from __future__ import annotations

import math
from pathlib import Path

from tlrec_edge.bundle.format import REMEDY
from tlrec_edge.errors import BundleError
from tlrec_edge.types import Floats


def check_finite(scores: Floats, path: Path) -> Floats:
    """Return scores as they are. Raises BundleError if any is NaN or infinite."""
    if not scores.dot(scores) < math.inf:  # the cheapest test that NaN and infinity fail
        raise BundleError(
            f"{path} is damaged: it gives scores that are NaN or infinite; "
            f"`tlrec-edge verify {path}` finds the file; {REMEDY}"
        )
    return scores
