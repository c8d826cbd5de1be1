"""Distillation in these tests uses small batches: the synthetic models are small too."""

from __future__ import annotations

import importlib
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="module")
def small_batches() -> Iterator[None]:
    """Set a batch size that is a quarter of the default, and half the validation batches."""
    distil = importlib.import_module("tlrec_edge.quantize.distil")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distil, "BATCH", 64)
        patch.setattr(distil, "VALIDATION_BATCHES", 4)
        yield
