"""Model folders of version 0.1.0 still open and score the same (see ``make_models_0_1_0.py``)."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from helpers import old_models
from helpers.old_models import MODELS, dataset
from tlrec_edge.data.task import make_tasks
from tlrec_edge.train import EdgeModel, adapt

NAMES = ("source", "auto", "compressed")


@pytest.mark.parametrize("name", ["auto", "compressed"])
def test_a_model_of_0_1_0_scores_the_same(name: str) -> None:
    model, data = EdgeModel.load(MODELS / name), dataset()
    model.check_split(data)
    score = model.scorer(data, make_tasks(data, ("small",)).final)
    expected = json.loads((MODELS / "scores.json").read_text("utf-8"))[name]
    users = np.arange(len(expected), dtype=np.int32)
    np.testing.assert_allclose(score(users), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_a_model_of_0_1_0_is_saved_without_loss(name: str, tmp_path: Path) -> None:
    EdgeModel.load(MODELS / name).save(tmp_path / "model")
    old, new = (
        json.loads((folder / "model.json").read_text("utf-8"))
        for folder in (MODELS / name, tmp_path / "model")
    )
    # Newer versions also write keys that 0.1.0 left out if they were empty.
    assert {**new["about"], **old.pop("about")} == new.pop("about")
    assert new == old
    with (
        np.load(MODELS / name / "arrays.npz") as old_arrays,
        np.load(tmp_path / "model/arrays.npz") as new_arrays,
    ):
        assert set(new_arrays) == set(old_arrays)
        for key in old_arrays:
            np.testing.assert_array_equal(new_arrays[key], old_arrays[key])


def test_a_source_model_of_0_1_0_can_be_adapted() -> None:
    model = adapt(dataset(), ("small",), "zero-shot", EdgeModel.load(MODELS / "source"))
    assert model.provenance.source == ("big",)


@pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"), reason="needs the kernels of x86-64"
)
def test_training_gives_the_stored_source_model(tmp_path: Path) -> None:
    """A change of the training loop that is not meant to change the model does not.

    If it is meant to, write the file again: see ``old_models.py``.
    """
    command = [sys.executable, old_models.__file__, str(tmp_path / "new.npz")]
    subprocess.run(command, env=os.environ | old_models.KERNELS, check=True)
    with np.load(tmp_path / "new.npz") as new, np.load(old_models.TRAINED) as old:
        assert new["ids"].tolist() == old["ids"].tolist()
        np.testing.assert_allclose(new["bias"], old["bias"], atol=1e-3)
        np.testing.assert_allclose(new["vectors"], old["vectors"], atol=1e-3)
