"""Synthetic bundles of any size, for load tests and for trying the runtime without a model.

Their tables have a realistic shape, but nothing is learned.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np

from tlrec_edge.bench.pooling_encoder import IR, OPSET, pooling_encoder
from tlrec_edge.bench.synth_config import SynthConfig
from tlrec_edge.bench.synthetic_tables import (
    popularity_bias,
    write_bias,
    write_item_weights,
    write_names,
    write_small_tables,
    write_vectors,
)
from tlrec_edge.bundle.format import ENCODER, PREFIX_SCAN, ModelShape
from tlrec_edge.bundle.item_vectors import Vectors, item_vectors
from tlrec_edge.bundle.reader import Bundle
from tlrec_edge.bundle.reorder import item_order, reordered
from tlrec_edge.bundle.session import Graph
from tlrec_edge.bundle.writer import BundleWriter
from tlrec_edge.core.rowwise import exact_limit
from tlrec_edge.search.fit_ivf import fit_ivf
from tlrec_edge.search.fit_prefix_bound import fit_prefix_bound
from tlrec_edge.search.prefix_scan import scan_graph
from tlrec_edge.types import Doubles, Indices

_USERS, _CLUSTERS_PER_USER = 256, 3
_USERS_AT_ONCE = 32
"""Users in a run of the encoder, whose steps are limited (see ``graph.check``)."""


def synthesize(
    path: str | os.PathLike[str],
    config: SynthConfig,
    progress: Callable[[str], None] = lambda step: None,
    encoder: bytes | None = None,
) -> Bundle:
    """Write a synthetic bundle.

    Args:
        path: Folder to write.
        config: Sizes and formats.
        progress: Called with the name of each step.
        encoder: History encoder graph with the inputs and output of ``pooling_encoder``, which is
            the default.

    Returns:
        The bundle, opened.

    Raises:
        MissingExtraError: If no encoder is given and onnx is not installed.
    """
    encoder = encoder or pooling_encoder(config.dim, config.length, config.seed)
    rng = np.random.default_rng(config.seed)
    manifest = _manifest(config)
    shape = ModelShape.from_manifest(manifest)
    with BundleWriter.at(path, manifest) as writer:
        writer.blob(ENCODER, encoder)
        progress("vectors")
        write_vectors(writer, config, shape, rng)
        write_bias(writer, config)
        progress("item-item weights")
        write_item_weights(writer, config, rng)
        write_small_tables(writer, config, rng)
        progress("search index")
        order = _write_search_index(writer, config, shape, encoder)
        progress("ids and names")
        write_names(writer, config, order)
        progress("hashes")
    return Bundle.open(path)


def _manifest(config: SynthConfig) -> dict[str, Any]:
    unknown_bias = popularity_bias(config, np.array([config.items]))
    return {
        "opset": OPSET,
        "ir": IR,
        "tables": config.storage.entry,
        "model": {
            "size": "fast",
            "mode": "synthetic",
            "d": config.dim,
            "r": config.interest,
            "L": config.length,
            "N": config.rows,
            "C": config.items,
            "g": 1,
            "G": config.groups,
            "event_count": 5,
            "pad": -1e9,
            "max_history": 1024,
            "taste": 0,
        },
        "weights": {"deep": 1.0, "wide": 1.0, "rest": 1.0},
        "user_scale": [2.0**-9, 2.0**-9],
        "user_limit": [exact_limit(config.dim), exact_limit(config.interest)],
        "unknown_score": float(unknown_bias[0]),
        "user_ids": None,
        "user_key": None,
        "quality": {"note": "synthetic: nothing was learned, so no quality is stated"},
        "transfer": {"note": "none: synthetic"},
        "latency": {},
        "provenance": {"synth": config.__dict__},
    }


def _write_search_index(
    writer: BundleWriter, config: SynthConfig, shape: ModelShape, encoder: bytes
) -> Indices:
    """Fit the IVF index and the prefix bound to random users; return the order of the rows.

    The IVF index puts the candidates of a cluster next to each other, which reorders all tables.
    """
    users, bias = _users(writer, config, shape, encoder), writer.written("candidate_bias")
    order = np.arange(config.rows)
    if config.items > config.lists_beyond:
        ivf = fit_ivf(_candidate_vectors(writer, shape), bias, users)
        order = item_order(ivf.order, config.rows)
        arrays = {name: writer.written(name) for name in writer.names()}
        for name, array in reordered(arrays, ivf.order, config.rows):
            writer.array(name, array)
        for name, array in ivf.arrays.items():
            writer.array(name, array)
        writer.update({"index": dict(ivf.card)})
        bias = writer.written("candidate_bias")
    prefix = fit_prefix_bound(_candidate_vectors(writer, shape), bias, users)
    for name, array in prefix.items():
        writer.array(name, array)
    if prefix:
        writer.blob(PREFIX_SCAN, scan_graph(*prefix["head_columns"].shape))
    return order


def _candidate_vectors(writer: BundleWriter, shape: ModelShape) -> Vectors:
    rows, scale = writer.written("candidate_rows"), writer.written("candidate_scale")
    return item_vectors(shape.candidate_format, rows, scale)


def _users(writer: BundleWriter, config: SynthConfig, shape: ModelShape, encoder: bytes) -> Doubles:
    """Return the vectors (u, d + r) of users whose histories lie within three clusters each."""
    rng = np.random.default_rng(config.seed)
    read, per_cluster = writer.written, config.rows // config.clusters
    clusters = rng.integers(0, config.clusters, (_USERS, _CLUSTERS_PER_USER))
    picks = rng.integers(0, _CLUSTERS_PER_USER, (_USERS, config.length))
    cluster = np.take_along_axis(clusters, picks, 1)  # (u, L)
    rows = cluster + config.clusters * rng.integers(0, per_cluster, cluster.shape)
    codes, scale = read("history_rows")[rows.ravel()], read("history_scale")[rows.ravel(), None]
    vectors = shape.history_format.values(codes) * scale
    weight = np.broadcast_to(read("position_bias"), rows.shape).astype(np.float32)
    inputs = {"history": vectors.reshape(*rows.shape, -1).astype(np.float32), "log_weight": weight}
    shapes = {name: (None, *array.shape[1:]) for name, array in inputs.items()}
    graph = Graph(encoder, ENCODER, shapes, {"user": (None, config.dim)})
    users = [slice(at, at + _USERS_AT_ONCE) for at in range(0, _USERS, _USERS_AT_ONCE)]
    feeds = ({name: values[some] for name, values in inputs.items()} for some in users)
    deep = np.concatenate([graph.run(feed, _USERS_AT_ONCE)[0] for feed in feeds])
    groups = read("groups")[:, 0][rows]
    counts = np.stack([np.bincount(row, minlength=config.groups) for row in groups])
    interest = np.log1p(counts) @ read("interest_in")
    return np.concatenate([deep, interest], 1).astype(np.float64)
