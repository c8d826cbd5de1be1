"""A table that was damaged with hashes that agree is found when it is read, and named."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from helpers.bundles import replace_array
from tlrec_edge import BundleError, Recommender

NAMES = [f"i{row}" for row in range(60)]
CALLS: dict[str, Callable[[Recommender], object]] = {
    "score": lambda rec: rec.score(["i3", "i4"], NAMES),
    "recommend": lambda rec: rec.recommend(["i3", "i4"], 5),
    "similar": lambda rec: rec.similar("i3", 5),
}
DAMAGE = {
    "bias": ("candidate_bias.npy", np.nan, ["score", "recommend"], "NaN or infinite"),
    "column": ("wide_columns.npy", 10**6, ["score", "recommend"], r"wide_columns\.npy"),
    "negative column": ("wide_columns.npy", -1, ["recommend"], r"wide_columns\.npy"),
    "group": ("groups.npy", 10**6, ["score", "recommend"], r"groups\.npy is damaged"),
    "negative group": ("groups.npy", -9, ["score", "recommend"], r"groups\.npy is damaged"),
    "vector": ("history_scale.npy", np.inf, ["score", "recommend"], r"encoder\.onnx.*NaN"),
    "interest": ("interest_in.npy", np.nan, ["score", "recommend"], "NaN or infinite"),
}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, for NaN and infinity
@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_table_is_named(path: Path, tmp_path: Path, case: str) -> None:
    name, value, calls, message = DAMAGE[case]
    shutil.copytree(path, tmp_path / "b")
    replace_array(tmp_path / "b", name, np.full_like(np.load(path / name), value))
    with Recommender.open(tmp_path / "b") as rec:
        for call in calls:
            with pytest.raises(BundleError, match=f"{tmp_path}.*{message}.*again"):
                CALLS[call](rec)


def test_rows_of_weights_that_overlap_are_named(path: Path, tmp_path: Path) -> None:
    shutil.copytree(path, tmp_path / "b")
    ends = np.load(path / "wide_indptr.npy")
    ends[4] = 10**9
    replace_array(tmp_path / "b", "wide_indptr.npy", ends)
    with Recommender.open(tmp_path / "b") as rec:
        for call in ("score", "recommend"):
            with pytest.raises(BundleError, match=r"wide_indptr\.npy is damaged.*again"):
                CALLS[call](rec)
        assert len(rec.similar("i3", 5).items) == 5
