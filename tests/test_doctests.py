"""The examples in the docstrings of the front door run in a folder that holds what they name."""

from __future__ import annotations

import doctest
import importlib
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import tlrec_edge
from helpers.paths import GOLDEN
from tlrec_edge import Recommender

BUILDERS: dict[str, Callable[[Path], object]] = {
    "bundle": lambda path: shutil.copytree(GOLDEN, path),
}
"""What examples may name, and how to write it."""
MODULES: dict[str, tuple[str, ...]] = {
    "tlrec_edge.bundle.item_rows": ("bundle",),
    "tlrec_edge.runtime.history": ("bundle",),
    "tlrec_edge.runtime.recommender": ("bundle",),
}
"""Modules with examples, and what these name. The names of ``tlrec_edge`` are imported for them."""
WITHOUT_EXAMPLE = {"exact", "after_fork"}
"""Members of Recommender that are deprecated or not for callers."""


@pytest.mark.parametrize("module", MODULES)
def test_examples_run(module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in MODULES[module]:
        BUILDERS[name](tmp_path / name)
    monkeypatch.chdir(tmp_path)
    names = {name: getattr(tlrec_edge, name) for name in tlrec_edge.__all__}
    found = doctest.testmod(importlib.import_module(module), extraglobs=names)
    assert found.attempted > 0
    assert found.failed == 0


def test_every_public_method_has_an_example() -> None:
    public = {name for name in vars(Recommender) if not name.startswith("_")} - WITHOUT_EXAMPLE
    missing = [
        n for n in sorted(public) if "Example:" not in (getattr(Recommender, n).__doc__ or "")
    ]
    assert missing == []
