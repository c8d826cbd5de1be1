"""What the scores of a small bundle must be: computed from its format, in float64."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime

from tlrec_edge import History
from tlrec_edge.bundle.reader import Bundle

CANDIDATES, ITEMS = 60, 80
"""Sizes of ``bundles.Small``; its ids are i0, i1 ..."""


def bits(scores: np.ndarray) -> list[int]:
    """Return float32 scores as integers, which differ if any bit differs."""
    assert scores.dtype == np.float32
    integers: list[int] = scores.view(np.int32).tolist()
    return integers


def reference(path: Path, history: History, rows: Sequence[int]) -> np.ndarray:
    """Return the scores of candidate rows by the definition of the format, row by row."""
    bundle = Bundle.open(path)
    shape, names = bundle.shape, bundle.strings("item_ids")
    known = {names[row]: row for row in range(shape.items)}
    events: Sequence[str | int | None] = history.events or [None] * len(history.items)
    times: Sequence[float | None] = history.timestamps or [None] * len(history.items)
    log = [
        (known[item], e, t)
        for item, e, t in zip(history.items, events, times, strict=True)
        if item in known
    ]
    bias = bundle.array("candidate_bias").astype(np.float64)
    if not log:
        return bias[list(rows)]
    rows_of = shape.history_format.values(bundle.array("history_rows")).astype(np.float64)
    vectors = rows_of * bundle.array("history_scale")[:, None].astype(np.float64)
    deep_weight, wide_weight, low_rank_weight = bundle.scoring.weights
    inputs = np.zeros((1, shape.length, shape.d), np.float32)
    weight = np.full((1, shape.length), shape.pad, np.float32)
    for back, (row, event, moment) in enumerate(reversed(log[-shape.length :]), 1):
        inputs[0, -back] = vectors[row]
        weight[0, -back] = bundle.array("position_bias")[-back]
        if event is not None:
            weight[0, -back] += bundle.array("event_bias")[event]
        if moment is not None:
            moments = [moment for _, _, moment in log if moment is not None]
            now = max(moments) if history.now is None else history.now
            age = int(np.floor(np.log2(1 + max(0.0, now - moment) / 86400)))
            weight[0, -back] += bundle.array("age_bias")[
                min(age, len(bundle.array("age_bias")) - 1)
            ]
    session = onnxruntime.InferenceSession(
        bundle.read("encoder.onnx"), providers=["CPUExecutionProvider"]
    )
    user = session.run(["user"], {"history": inputs, "log_weight": weight})[0][0].astype(np.float64)
    distinct = list(dict.fromkeys(row for row, _, _ in reversed(log)))[: shape.max_history]
    counts, wide = np.zeros(shape.groups), np.zeros(shape.candidates)
    for row in distinct:
        for group in bundle.array("groups")[row]:
            counts[group] += group >= 0
        span = slice(*bundle.array("wide_indptr")[row : row + 2])
        scale = (
            bundle.array("wide_scale")[row].astype(np.float64)
            if shape.tables.wide == "int8"
            else 1.0
        )
        wide[bundle.array("wide_columns")[span]] += (
            bundle.array("wide_values")[span] * scale * wide_weight
        )
        if row < shape.candidates:
            wide[row] += bundle.scoring.repeat_bias
    interest = np.log1p(counts) @ bundle.array("interest_in")
    if bundle.has("taste_rows.npy"):
        stored = bundle.array("taste_rows")
        width = stored.shape[1] if shape.low_rank_width is None else shape.low_rank_width
        factors = shape.low_rank_format(width).values(stored)[distinct]
        factors = factors * bundle.array("taste_scale")[distinct, None].astype(np.float64)
        interest[-width:] += factors.sum(0) * low_rank_weight
    table, scale = bundle.array("candidate_rows"), bundle.array("candidate_scale")
    scale = scale.astype(np.float64)
    deep_rows, interest_rows = (
        shape.candidate_format.values(table, block).astype(np.float64) for block in (0, 1)
    )
    deep_scores = deep_rows @ user * scale[:, 0] * deep_weight
    scores: np.ndarray = deep_scores + interest_rows @ interest * scale[:, 1] + wide + bias
    return scores[list(rows)]
