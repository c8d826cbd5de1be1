"""Build the manifest entries that describe a model and its dataset."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray

from tlrec_edge.data.dataset import Dataset
from tlrec_edge.data.store import dataset_hash, split_hash
from tlrec_edge.train.bundle_arrays import part_weights, storage
from tlrec_edge.train.edge_model import EdgeModel
from tlrec_edge.train.model import PAD
from tlrec_edge.train.provenance import Provenance
from tlrec_edge.train.user_histories import MAX_HISTORY

from .graphs import IR_VERSION, OPSET
from .source import ExportSource
from .users import user_scales

REQUEST_CANDIDATES = 100
"""Number of candidates in the request that the latency card describes."""


def model_manifest(
    source: ExportSource,
    arrays: Mapping[str, NDArray[Any]],
    cards: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the manifest of a bundle without stored users or a search index.

    Args:
        source: The model and its dataset.
        arrays: The model's tables by their names in the bundle.
        cards: The ``quality`` and ``transfer`` cards, either of which may be missing.
    """
    model, stored = source.model, storage(source.model)
    scales = user_scales(source)
    return {
        "opset": OPSET,
        "ir": IR_VERSION,
        "tables": stored.entry,
        **({} if stored.uniform else {"weights": part_weights(model)}),
        "model": _shape(source, arrays),
        "user_scale": scales.steps,
        "user_limit": scales.limits,
        "unknown_score": float(arrays["candidate_bias"].min()),
        "repeat": model.score_weights.repeat,
        "user_ids": None,
        "user_key": None,
        "features": _features(model),
        "quality": dict(cards.get("quality", {})),
        "transfer": dict(cards.get("transfer", {"claim": "none", "why": "not measured"})),
        "compression": dict(model.provenance.compression),
        "latency": _latency(model.provenance.compression),
        "provenance": _provenance(model.provenance, source.dataset),
    }


def _shape(source: ExportSource, arrays: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    model, config = source.model, source.model.net.config
    return {
        "size": config.size,
        "mode": model.provenance.mode or "none",
        "d": config.width,
        "r": source.low_rank_width,
        "taste": model.residual.rank,
        "L": config.history,
        "N": len(model.ids),
        "C": model.candidates,
        "g": int(model.groups.shape[1]),
        "G": len(model.interest.input_factors),
        "pad": PAD,
        "max_history": MAX_HISTORY,
        "feed_forward": config.feed_forward,
        "wide_weights": len(arrays["wide_values"]),
        "most_wide_weights_a_row": int(np.diff(arrays["wide_indptr"]).max(initial=0)),
    }


def _features(model: EdgeModel) -> dict[str, Any]:
    features = model.features
    return {
        "text": list(features.text_columns),
        "categorical": {name: len(values) for name, values in features.vocabulary.items()},
        "numeric": list(features.quantiles),
        "text_encoder": None if features.text is None else features.text.encoder,
    }


def latencies(compression: Mapping[str, Any]) -> tuple[Mapping[str, float], ...]:
    """Return the microseconds of the compressed model and of its original; empty if not timed.

    Cards of version 0.1.0 have them only among the points of the search.
    """
    if "us" in compression:
        return compression["us"] or {}, compression.get("original_us") or {}
    points = {point["step"]: point for point in compression.get("points", [])}
    original: Mapping[str, Any] = next(iter(points.values()), {})
    chosen = points.get(compression.get("chosen"), {})
    return chosen.get("us") or {}, original.get("us") or {}


def _latency(compression: Mapping[str, Any]) -> dict[str, Any]:
    """Return the latency card: what the compression measured, and on which machine."""
    us, _ = latencies(compression)
    if not us:
        return {"claim": "none", "why": "not measured: run `tlrec-edge bench`"}
    return {
        "claim": "measured",
        "request": f"a history and {REQUEST_CANDIDATES} candidates, encoded and scored",
        "us": us,
        "machine": compression.get("machine"),
    }


def _provenance(made: Provenance, dataset: Dataset) -> dict[str, Any]:
    return {
        "dataset": dataset.source,
        "dataset_sha256": dataset_hash(dataset),
        "split": dataset.split.kind,
        "split_sha256": split_hash(dataset),
        "domains": list(made.domains),
        "fold": made.fold,
        "source_domains": made.source,
        "mode": made.mode,
        "choices": made.choices and made.choices.to_json(),
        "train": asdict(made.train),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "onnx": onnx.__version__,
            "onnxruntime": onnxruntime.__version__,
            "numpy": np.__version__,
        },
    }
