"""The provenance in a bundle's manifest is read, or refused with the name of the entry."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from helpers import bundles, synthetic
from tlrec_edge.errors import BundleError
from tlrec_edge.evaluation.compared import open_compared_model


def message(folder: Path, provenance: Any) -> str:
    """Return why a bundle with this provenance cannot be evaluated."""
    path = folder / "bundle"
    bundles.build(path)
    bundles.edit_manifest(path, lambda manifest: manifest.update(provenance=provenance))
    with pytest.raises(BundleError) as caught:
        open_compared_model(path, synthetic.dataset())
    return str(caught.value)


@pytest.mark.parametrize(
    ("provenance", "entry"),
    [
        ("text", "provenance"),
        ([1], "provenance"),
        ({"domains": 5}, "provenance: domains"),
        ({"domains": "small"}, "provenance: domains"),
        ({"domains": ["small", None]}, "provenance: domains"),
        ({"source_domains": {"big": 1}}, "provenance: source_domains"),
        ({"mode": {}}, "provenance: mode"),
        ({"fold": "0"}, "provenance: fold"),
        ({"fold": True}, "provenance: fold"),
        ({"split_sha256": 7}, "provenance: split_sha256"),
        ({"dataset_sha256": []}, "provenance: dataset_sha256"),
        ({"train": "fast"}, "provenance: train"),
        ({"train": {"size": ["fast"]}}, "provenance: train"),
        ({"train": {"width": "wide"}}, "provenance: train"),
        ({"train": {"augment": 5}}, "provenance: train"),
        ({"train": {"align": "magnetic"}}, "provenance: train"),
        ({"train": {"event_weights": [["view", 10**400]]}}, "provenance: train"),
    ],
)
def test_an_entry_of_another_type_is_named(tmp_path: Path, provenance: Any, entry: str) -> None:
    assert f"manifest.json: {entry}" in message(tmp_path, provenance)


@pytest.mark.parametrize("provenance", [None, {}, {"train": None}, {"train": {"newer": 1}}])
def test_entries_may_be_absent_or_unknown(tmp_path: Path, provenance: Any) -> None:
    assert "another split" in message(tmp_path, provenance)
