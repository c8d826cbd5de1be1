"""The first stages of an export: what a bundle holds of every item, and the graphs that run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from tlrec_edge.bundle.format import ENCODER, FEATURES, ITEM_TOWER, SCHEMA
from tlrec_edge.data.dataset import Dataset
from tlrec_edge.runtime.cold_items import features_json
from tlrec_edge.train.bundle_arrays import storage, stored_arrays
from tlrec_edge.train.edge_model import EdgeModel

from .contents import BundleContents
from .graphs import encoder_graph, item_tower_graph
from .manifest import model_manifest
from .source import ExportSource


def item_contents(source: ExportSource, cards: Mapping[str, Any]) -> BundleContents:
    """Return the tables with one row per item, and the manifest entries derived from the model.

    Args:
        source: The model and its dataset.
        cards: The ``quality`` and ``transfer`` cards, either of which may be missing.
    """
    model = source.model
    arrays = stored_arrays(model)
    contents = BundleContents(
        model_manifest(source, arrays, cards),
        arrays,
        {"item_ids": model.ids, "item_names": model.names},
        {SCHEMA: _schema_json(source.dataset)},
    )
    return _add_categories(contents, source.dataset, model)


def add_graphs(contents: BundleContents, source: ExportSource) -> BundleContents:
    """Add the history encoder and, if the model reads item features, what embeds a new item."""
    model = source.model
    contents = contents.with_entries(blobs={ENCODER: encoder_graph(model)})
    tower = item_tower_graph(model, weighted=storage(model).uniform)
    if tower is None:
        return contents
    features = features_json(model.features.within(model.provenance.domains))
    arrays = {"text_table": model.features.text_table.astype(np.float16)}
    if model.net.config.text:
        text = model.net.text[: model.candidates].numpy()
        arrays["candidate_text"] = text.astype(np.float16)
    return contents.with_entries(arrays=arrays, blobs={ITEM_TOWER: tower, FEATURES: features})


def _schema_json(dataset: Dataset) -> bytes:
    """Return how the tables were read: a log that is scored later is read in the same way."""
    return json.dumps(dataset.schema.to_json(), ensure_ascii=False, indent=1).encode()


def _add_categories(contents: BundleContents, dataset: Dataset, model: EdgeModel) -> BundleContents:
    """Add the first categorical column that has a value for some item, for display and filters."""
    rows = [dataset.item_row.get(name, -1) for name in model.ids]
    for column in dataset.features.categorical.values():
        values = np.array([column[row] if row >= 0 else "" for row in rows], dtype=object)
        names, code = np.unique(values.astype(str), return_inverse=True)
        # The empty string sorts first: without it the codes shift down, and -1 means "no category".
        shift = 1 if names[0] == "" else 0
        if len(names) > shift:
            return contents.with_entries(
                arrays={"item_category": (code - shift).astype(np.int32)},
                strings={"category_names": tuple(names[shift:].tolist())},
            )
    return contents
