"""Every test of this folder distils in small batches."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True, scope="module")
def every_module(small_batches: None) -> None:
    pass
