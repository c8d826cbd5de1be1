"""The models of version 0.1.0 in tests/data, and their dataset.

As a program, ``python old_models.py FILE`` trains the source model again and writes its arrays.
With the environment ``KERNELS`` it writes ``TRAINED``.
"""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from tlrec_edge.data.dataset import Dataset
from tlrec_edge.data.prepare import SplitPlan, prepare_tables
from tlrec_edge.tabular.schema import Schema
from tlrec_edge.train import EdgeModel, pretrain

MODELS = Path(__file__).resolve().parents[1] / "data/models_0_1_0"
TRAINED = MODELS.parent / "trained_source.npz"
KERNELS = {"OPENBLAS_CORETYPE": "Prescott", "ATEN_CPU_CAPABILITY": "default"}
"""Environment that the source model was trained under: kernels that every x86-64 processor has.

Singular values of the small dataset coincide, so rounding decides the vectors that a network starts
from, and with them the whole model.
"""


@cache
def dataset() -> Dataset:
    log, items = (
        pd.read_csv(MODELS / f"{name}.csv", dtype=str) for name in ("interactions", "items")
    )
    schema, plan = Schema(features={"title": "text"}), SplitPlan(negatives=5)
    return prepare_tables([log], [items], schema, plan).dataset


if __name__ == "__main__":
    old = EdgeModel.load(MODELS / "source")
    new = pretrain(dataset(), ("big",), old.provenance.train)
    np.savez(sys.argv[1], ids=new.ids, bias=new.bias, vectors=new.candidate_vectors)
