"""EASE, metrics and standard errors equal those of other libraries."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks.references.__main__ import REFERENCES, largest_differences

FOLDER = os.environ.get("TLREC_REFERENCES")


@pytest.mark.slow
@pytest.mark.skipif(not FOLDER, reason="environments of other libraries (TLREC_REFERENCES=FOLDER)")
@pytest.mark.parametrize("name", REFERENCES)
def test_figures_equal_those_of_another_library(name: str) -> None:
    found = largest_differences(Path(FOLDER or ""), [name])
    assert found
    for (_, figure), difference in found.items():
        assert difference <= REFERENCES[name].tolerance, figure
