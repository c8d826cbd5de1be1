"""Exported list by list, a catalogue is the same in everything but the order of its rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from helpers import synthetic
from helpers.quantized import model_of
from tlrec_edge import Recommender
from tlrec_edge.bundle.reader import Bundle
from tlrec_edge.export import ExportConfig, export_bundle, search_index
from tlrec_edge.search import fit_prefix_bound as head_fit


@pytest.mark.parametrize("tables", ["int8", "mixed"])
def test_items_that_stand_list_by_list_are_what_they_were(
    tables: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, data = model_of("finetune", "fast", tables), synthetic.dataset()
    export_bundle(model, data, tmp_path / "plain", ExportConfig("plain"))
    monkeypatch.setattr(search_index, "IVF_MIN_CANDIDATES", 10)
    monkeypatch.setattr(head_fit, "PREFIX_MIN_CANDIDATES", 10)
    export_bundle(model, data, tmp_path / "listed", ExportConfig("plain"))
    users = Bundle.open(tmp_path / "plain").strings("users").take(range(20))
    with (
        Recommender.open(tmp_path / "plain", verify="full") as plain,
        Recommender.open(tmp_path / "listed", verify="full") as listed,
    ):
        assert listed.manifest["index"]["lists"] > 1
        assert not plain.manifest["index"]
        plain_bundle, listed_bundle = plain._open().bundle, listed._open().bundle
        ids = plain_bundle.strings("item_ids").take(range(plain_bundle.shape.items))
        candidates = ids[: len(plain)]
        assert plain.rows(ids).values.tolist() == list(range(len(ids)))
        rows = listed.rows(ids).values
        assert (
            sorted(rows[: len(plain)].tolist())
            == list(range(len(plain)))
            != rows[: len(plain)].tolist()
        )
        assert rows[len(plain) :].tolist() == list(range(len(plain), len(ids)))
        for name in ("item_category", "history_rows"):
            if plain_bundle.has(f"{name}.npy"):
                assert np.array_equal(listed_bundle.array(name)[rows], plain_bundle.array(name))
        for user in [*users, ids[:7], ids[-9:], [*ids[:3], "nobody"]]:
            assert listed.score(user, candidates).tolist() == plain.score(user, candidates).tolist()
            found, wanted = (rec.recommend(user, 5, exhaustive=True) for rec in (listed, plain))
            assert found.scores.tolist() == wanted.scores.tolist()
            assert (
                dict(zip(found.items, found.names, strict=True)).items()
                <= dict(
                    zip(
                        ids,
                        plain_bundle.strings("item_names").take(range(len(ids))),
                        strict=True,
                    )
                ).items()
            )
