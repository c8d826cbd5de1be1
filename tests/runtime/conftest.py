"""A small bundle with users, opened once for a test module."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers import bundles
from tlrec_edge import Recommender


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runtime") / "bundle"
    bundles.build(path, users=["ann", "bob", "🛒"])
    return path


@pytest.fixture(scope="module")
def rec(path: Path) -> Iterator[Recommender]:
    with Recommender.open(path) as opened:
        yield opened
