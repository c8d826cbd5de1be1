"""NDCG, HR and MRR of ir-measures: ``python run_ir_measures.py data.npz out.npz``."""

from __future__ import annotations

import sys

import ir_measures
import numpy as np
from ir_measures import RR, Success, nDCG

MEASURES = {"ndcg": nDCG @ 10, "hr": Success @ 10, "mrr": RR @ 10}

scores = np.load(sys.argv[1])["scores"]
truth = {str(row): {"0": 1} for row in range(len(scores))}
run = {
    str(row): {str(column): float(score) for column, score in enumerate(values)}
    for row, values in enumerate(scores)
}
out = {name: np.zeros(len(scores)) for name in MEASURES}
names = {measure: name for name, measure in MEASURES.items()}
for value in ir_measures.iter_calc(list(MEASURES.values()), truth, run):
    out[names[value.measure]][int(value.query_id)] = value.value
np.savez(sys.argv[2], **out)
