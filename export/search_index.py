"""Add the indexes of a top-k search: prefix bounds, and an IVF for the largest catalogues."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tlrec_edge.bundle.format import PREFIX_SCAN
from tlrec_edge.bundle.item_vectors import Vectors, item_vectors
from tlrec_edge.bundle.reorder import item_order, reordered
from tlrec_edge.core.packing import RowFormat
from tlrec_edge.search.fit_ivf import IVF_MIN_CANDIDATES, fit_ivf
from tlrec_edge.search.fit_prefix_bound import fit_prefix_bound
from tlrec_edge.search.prefix_scan import scan_graph
from tlrec_edge.train.bundle_arrays import storage

from .contents import Arrays, BundleContents
from .source import ExportSource

Queries = NDArray[np.float64]


def add_search_index(contents: BundleContents, source: ExportSource) -> BundleContents:
    """Add an IVF above ``IVF_MIN_CANDIDATES`` candidates, and prefix bounds if they pay off.

    Both are fitted to the sampled users and to the stored, rounded vectors, so that the bounds hold
    for the vectors that the runtime reads. An IVF reorders all candidates by cluster, so this stage
    comes after every stage that adds rows of items.
    """
    queries = _queries(source)
    return _add_bounds(_add_ivf(contents, source, queries), source, queries)


def _add_ivf(contents: BundleContents, source: ExportSource, queries: Queries) -> BundleContents:
    count = source.model.candidates
    if not len(queries) or count <= IVF_MIN_CANDIDATES:
        return contents.with_entries(manifest={"index": {}})
    candidates = _candidates(contents.arrays, source)
    ivf = fit_ivf(candidates, contents.arrays["candidate_bias"], queries)
    items = len(source.model.ids)
    rows = item_order(ivf.order, items).tolist()
    names = {name: contents.strings[name] for name in ("item_ids", "item_names")}
    return contents.with_entries(
        manifest={"index": dict(ivf.card)},
        arrays=dict(reordered(contents.arrays, ivf.order, items)) | dict(ivf.arrays),
        strings={name: [values[row] for row in rows] for name, values in names.items()},
    )


def _add_bounds(contents: BundleContents, source: ExportSource, queries: Queries) -> BundleContents:
    candidates = _candidates(contents.arrays, source)
    bounds = fit_prefix_bound(candidates, contents.arrays["candidate_bias"], queries)
    if not bounds:
        return contents
    scan = scan_graph(*bounds["head_columns"].shape)
    return contents.with_entries(arrays=bounds, blobs={PREFIX_SCAN: scan})


def _queries(source: ExportSource) -> Queries:
    """Return the sampled users' vectors, weighted as in the runtime, (u, d + r)."""
    model, users = source.model, source.sample
    # If the storage is uniform, the candidates' scales include the two-tower weight already.
    weight = 1.0 if storage(model).uniform else model.score_weights.two_tower
    vectors = [source.encoded(users) * weight, source.low_rank(users)]
    return np.concatenate(vectors, 1).astype(np.float64)


def _candidates(arrays: Arrays, source: ExportSource) -> Vectors:
    """Return the reader of the candidates' stored vectors."""
    kinds, width = storage(source.model), source.model.net.config.width
    form = RowFormat((kinds.candidate, width), (kinds.taste, source.low_rank_width))
    return item_vectors(form, arrays["candidate_rows"], arrays["candidate_scale"])
