"""Bundles of any size with realistic shape, for load tests and for buyers without a model yet; nothing is learned.

Items form clusters, popularity follows Zipf's law, wide weights stay within a cluster. Tables are filled in chunks
through memory maps, so that memory grows with the ids and one number an item, not with the tables.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlrec_edge.bundle.format import (
    ENCODER,
    PREFIX_SCAN,
    UNIFORM_KINDS,
    WIDE_KINDS,
    ModelShape,
    Storage,
    column_dtype,
)
from tlrec_edge.bundle.item_vectors import Vectors, item_vectors
from tlrec_edge.bundle.reader import Bundle
from tlrec_edge.bundle.reorder import item_order, reordered
from tlrec_edge.bundle.session import Graph
from tlrec_edge.bundle.writer import BundleWriter
from tlrec_edge.core.packing import WRITTEN
from tlrec_edge.core.rowwise import exact_limit, quantize_sparse
from tlrec_edge.errors import MissingExtraError
from tlrec_edge.search.fit_ivf import IVF_MIN_CANDIDATES, fit_ivf
from tlrec_edge.search.fit_prefix_bound import fit_prefix_bound
from tlrec_edge.search.prefix_scan import scan_graph
from tlrec_edge.types import Floats, Indices

OPSET, IR = 18, 9
_CHUNK = 65_536
_USERS = 256
_NOUNS = (
    "Mug",
    "Lamp",
    "Scarf",
    "Kettle",
    "Notebook",
    "Chair",
    "Pillow",
    "Knife",
    "Basket",
    "Clock",
    "Tray",
    "Candle",
)
_ADJECTIVES = (
    "red",
    "oak",
    "striped",
    "small",
    "vintage",
    "glass",
    "folding",
    "soft",
    "blue",
    "travel",
    "brass",
)


@dataclass(frozen=True)
class SynthConfig:
    """Sizes of a bundle; ``wide`` is the most item-item weights a row, ``history_only`` items are no candidates.

    ``tables``: what rows are stored as, of ``packing.WRITTEN``; ``weights``: the item-item weights, of ``WIDE_KINDS``.
    ``popularity``: how far the log popularity moves scores; 0 makes every item's bias 0. Beyond ``lists_beyond`` items
    they stand list by list, not by number.
    """

    items: int
    dim: int = 64
    interest: int = 16
    length: int = 50
    groups: int = 200
    wide: int = 20
    history_only: int = 0
    tables: str = "int8"
    weights: str = "float32"
    popularity: float = 0.15
    lists_beyond: int = IVF_MIN_CANDIDATES
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("items", "dim", "length", "groups"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}; expected at least 1")
        for name in ("interest", "wide", "history_only", "lists_beyond"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} = {getattr(self, name)}; expected at least 0")
        if not 0 <= self.popularity <= 100:
            raise ValueError(f"popularity = {self.popularity}; expected a factor in 0..100")
        for name, known in (("tables", WRITTEN), ("weights", WIDE_KINDS)):
            if getattr(self, name) not in known:
                raise ValueError(
                    f"{name} = {getattr(self, name)!r}; expected one of {', '.join(known)}"
                )

    @property
    def rows(self) -> int:
        return self.items + self.history_only

    @property
    def storage(self) -> Storage:
        return Storage(*4 * (self.tables,), wide=self.weights)

    @property
    def clusters(self) -> int:
        return min(4096, max(1, int(self.items**0.5)))


def synthesize(
    path: str | os.PathLike[str],
    config: SynthConfig,
    progress: Callable[[str], None] = lambda step: None,
    encoder: bytes | None = None,
) -> Bundle:
    """Write a synthetic bundle at ``path``; ``progress`` hears of each step.

    ``encoder`` is the graph to put in, of inputs and output as ``pooling_encoder``'s, which is made without one. That
    raises MissingExtraError where onnx is not installed.
    """
    encoder = encoder or pooling_encoder(config.dim, config.length, config.seed)
    rng = np.random.default_rng(config.seed)
    manifest = _manifest(config)
    shape = ModelShape.from_manifest(manifest)
    with BundleWriter.at(path, manifest) as writer:
        writer.blob(ENCODER, encoder)
        progress("vectors")
        _write_vectors(writer, config, shape, rng)
        _write_bias(writer, config)
        progress("wide weights")
        _write_wide(writer, config, rng)
        _write_small(writer, config, rng)
        progress("lists and heads")
        order = _write_search(writer, config, shape, encoder)
        progress("ids and names")
        writer.strings("item_ids", (f"SKU{row:08d}" for row in order.tolist()), index=True)
        writer.strings("item_names", _names(config, order))
        progress("hashes")
    return Bundle.open(path)


def pooling_encoder(dim: int, length: int, seed: int) -> bytes:
    """Return an attention-pooling history encoder of random weights: one query, one hidden layer, a residual."""
    try:
        from onnx import TensorProto, checker, helper, numpy_helper
    except ImportError as error:
        raise MissingExtraError("writing an encoder graph", "build") from error
    rng = np.random.default_rng(seed)
    tensors = {
        "query": rng.normal(0, dim**-0.5, (dim, 1)),
        "in": rng.normal(0, dim**-0.5, (dim, dim)),
        "in_bias": rng.normal(0, 0.1, dim),
        "out": rng.normal(0, 0.5 * dim**-0.5, (dim, dim)),
        "out_bias": np.zeros(dim),
    }
    initializers = [
        numpy_helper.from_array(value.astype(np.float32), name) for name, value in tensors.items()
    ]
    for name, axis in (("last", -1), ("middle", 1)):
        initializers.append(numpy_helper.from_array(np.array([axis], np.int64), name))
    node = helper.make_node
    nodes = [
        node("MatMul", ["history", "query"], ["logit_column"]),
        node("Squeeze", ["logit_column", "last"], ["logit"]),
        node("Add", ["logit", "log_weight"], ["weighted"]),
        node("Softmax", ["weighted"], ["attention"], axis=-1),
        node("Unsqueeze", ["attention", "middle"], ["attention_row"]),
        node("MatMul", ["attention_row", "history"], ["pooled_row"]),
        node("Squeeze", ["pooled_row", "middle"], ["pooled"]),
        node("Gemm", ["pooled", "in", "in_bias"], ["hidden"]),
        node("Relu", ["hidden"], ["active"]),
        node("Gemm", ["active", "out", "out_bias"], ["change"]),
        node("Add", ["pooled", "change"], ["user"]),
    ]
    value = helper.make_tensor_value_info
    inputs = [
        value("history", TensorProto.FLOAT, ["batch", length, dim]),
        value("log_weight", TensorProto.FLOAT, ["batch", length]),
    ]
    graph = helper.make_graph(
        nodes, "encoder", inputs, [value("user", TensorProto.FLOAT, ["batch", dim])], initializers
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR)
    checker.check_model(model)
    blob: bytes = model.SerializeToString()
    return blob


def _manifest(config: SynthConfig) -> dict[str, Any]:
    model = {
        "size": "fast",
        "mode": "synthetic",
        "d": config.dim,
        "r": config.interest,
        "L": config.length,
    }
    model |= {
        "N": config.rows,
        "C": config.items,
        "g": 1,
        "G": config.groups,
        "event_count": 5,
        "pad": -1e9,
    }
    return {
        "opset": OPSET,
        "ir": IR,
        "tables": config.storage.entry,
        "model": model | {"max_history": 1024, "taste": 0},
        "weights": {"deep": 1.0, "wide": 1.0, "rest": 1.0},
        "user_scale": [2.0**-9, 2.0**-9],
        "user_limit": [exact_limit(config.dim), exact_limit(config.interest)],
        "unknown_score": float(_bias(config, np.array([config.items]))[0]),
        "user_ids": None,
        "user_key": None,
        "quality": {"note": "synthetic: nothing was learned, so there is no quality to state"},
        "transfer": {"note": "none: synthetic"},
        "latency": {},
        "provenance": {"synth": config.__dict__},
    }


def _chunks(n: int) -> Iterator[tuple[int, int]]:
    for start in range(0, n, _CHUNK):
        yield start, min(n, start + _CHUNK)


def _write_vectors(
    writer: BundleWriter, config: SynthConfig, shape: ModelShape, rng: np.random.Generator
) -> None:
    n, c, d, r = config.rows, config.items, config.dim, config.interest
    history, candidate = shape.history_format, shape.candidate_format
    scales = np.float32 if config.tables in UNIFORM_KINDS else np.float16
    history_rows = writer.create("history_rows", history.dtype, (n, history.width))
    candidate_rows = writer.create("candidate_rows", candidate.dtype, (c, candidate.width))
    history_scale, candidate_scale = np.empty(n, scales), np.empty((c, 2), scales)
    deviation = _deviations(d)
    centroids = rng.standard_normal((config.clusters, d), np.float32) * deviation
    for start, end in _chunks(n):
        centroid = centroids[np.arange(start, end) % config.clusters]
        vectors = (
            centroid + 0.5 * deviation * rng.standard_normal(centroid.shape, np.float32)
        ) * np.float32(d**-0.5)
        history_rows[start:end], scale = history.quantize(vectors)
        history_scale[start:end] = scale[:, 0]
        if start >= c:
            continue
        end = min(end, c)
        noise = rng.normal(0, 0.2 * d**-0.5, (end - start, d)).astype(np.float32)
        deep = vectors[: end - start] + deviation * noise
        interest = rng.normal(0, 0.1, (end - start, r)).astype(np.float32)
        candidate_rows[start:end], candidate_scale[start:end] = candidate.quantize(deep, interest)
    writer.array("history_scale", history_scale)
    writer.array("candidate_scale", candidate_scale)


def _deviations(d: int) -> Floats:
    """Return the standard deviation of each coordinate, root mean square 1: the k-th axis has 1 / k of the first's
    variance, near to what trained models have (their first 16 axes hold .86 to .99 of it, these .71 at d = 64)."""
    variance = 1.0 / np.arange(1.0, d + 1)
    deviation: Floats = np.sqrt(variance * d / variance.sum()).astype(np.float32)
    return deviation


def _write_search(
    writer: BundleWriter, config: SynthConfig, shape: ModelShape, encoder: bytes
) -> Indices:
    """Fit lists and heads to users whose histories lie within three clusters each; return the order of the rows."""
    users = _users(writer, config, shape, encoder)

    def vectors() -> Vectors:
        return item_vectors(
            shape.candidate_format,
            writer.written("candidate_rows"),
            writer.written("candidate_scale"),
        )

    order = np.arange(config.rows)
    if config.items > config.lists_beyond:
        ivf = fit_ivf(vectors(), writer.written("candidate_bias"), users)
        order = item_order(ivf.order, config.rows)
        arrays = {name: writer.written(name) for name in writer.names()}
        for name, array in reordered(arrays, ivf.order, config.rows):
            writer.array(name, array)
        for name, array in ivf.arrays.items():
            writer.array(name, array)
        writer.update({"index": dict(ivf.card)})
    found = fit_prefix_bound(vectors(), writer.written("candidate_bias"), users)
    for name, array in found.items():
        writer.array(name, array)
    if found:
        writer.blob(PREFIX_SCAN, scan_graph(*found["head_columns"].shape))
    return order


def _users(
    writer: BundleWriter, config: SynthConfig, shape: ModelShape, encoder: bytes
) -> NDArray[np.float64]:
    """Return the vectors of invented users (u, d + r)."""
    rng = np.random.default_rng(config.seed)
    read = writer.written
    clusters_of_users = rng.integers(0, config.clusters, (_USERS, 3))
    picked_clusters = np.take_along_axis(
        clusters_of_users, rng.integers(0, 3, (_USERS, config.length)), 1
    )
    rows = picked_clusters + config.clusters * rng.integers(
        0, config.rows // config.clusters, picked_clusters.shape
    )
    vectors = (
        shape.history_format.values(read("history_rows")[rows.ravel()])
        * read("history_scale")[rows.ravel(), None]
    )
    weight = np.broadcast_to(read("position_bias"), rows.shape).astype(np.float32)
    feed = {"history": vectors.reshape(*rows.shape, -1).astype(np.float32), "log_weight": weight}
    (deep,) = Graph(encoder, ENCODER, ["user"]).run(feed, (_USERS, config.dim))
    groups = read("groups")[:, 0][rows]
    counts = np.stack([np.bincount(row, minlength=config.groups) for row in groups])
    return np.concatenate([deep, np.log1p(counts) @ read("interest_in")], 1).astype(np.float64)


def _bias(config: SynthConfig, rank: NDArray[np.int64]) -> Floats:
    """Return the log popularity of a rank under Zipf's law, on the scale of the scores."""
    return (-config.popularity * np.log1p(rank)).astype(np.float32)


def _write_bias(writer: BundleWriter, config: SynthConfig) -> None:
    bias = writer.create("candidate_bias", "<f4", (config.items,))
    step = _coprime(config.items)
    for start, end in _chunks(config.items):
        # A popular item may stand anywhere: ranks are spread over the rows by a full cycle, without a table of them.
        bias[start:end] = _bias(config, np.arange(start, end) * step % config.items)


def _coprime(n: int) -> int:
    """Return a step near 0.618 n that visits all of 0..n-1."""
    step = max(1, int(n * 0.618))
    while np.gcd(step, n) != 1:
        step += 1
    return step


def _write_wide(writer: BundleWriter, config: SynthConfig, rng: np.random.Generator) -> None:
    n, c, k = config.rows, config.items, config.clusters
    per_cluster = c // k
    max_weights = min(config.wide, per_cluster)
    lengths = (
        rng.integers(max_weights // 2, max_weights + 1, n) if max_weights else np.zeros(n, np.int64)
    )
    indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    is_int8 = config.weights == "int8"
    columns = writer.create(
        "wide_columns", column_dtype(c) if is_int8 else "<i4", (int(indptr[-1]),)
    )
    values = writer.create("wide_values", "|i1" if is_int8 else "<f4", (int(indptr[-1]),))
    scale = np.ones(n, np.float16)
    for start, end in _chunks(n):
        if not max_weights:
            break
        steps = rng.integers(1, per_cluster // max_weights + 1, (end - start, max_weights))
        # Members of a cluster stand k rows apart, so rising member numbers are rising columns.
        members = np.cumsum(steps, axis=1) - 1
        found = members * k + (np.arange(start, end) % k)[:, None]  # (rows, max_weights)
        mask = np.arange(max_weights) < lengths[start:end, None]
        span = slice(int(indptr[start]), int(indptr[end]))
        columns[span] = found[mask]
        weights = rng.exponential(0.1, span.stop - span.start).astype(np.float32)
        if is_int8:
            values[span], scale[start:end] = quantize_sparse(
                weights, indptr[start : end + 1] - indptr[start]
            )
        else:
            values[span] = weights
    writer.array("wide_indptr", indptr)
    if is_int8:
        writer.array("wide_scale", scale)


def _write_small(writer: BundleWriter, config: SynthConfig, rng: np.random.Generator) -> None:
    groups = (np.arange(config.rows) % config.clusters % config.groups).astype(np.int32)
    writer.array("groups", groups[:, None])
    writer.array(
        "interest_in", rng.normal(0, 0.1, (config.groups, config.interest)).astype(np.float32)
    )
    writer.array("position_bias", np.linspace(-1, 0, config.length, dtype=np.float32))
    writer.array("event_bias", np.array([-0.5, -0.3, 0.0, 0.3, 0.0], np.float32))
    writer.array("age_bias", np.linspace(0, -1, 12, dtype=np.float32))


def _names(config: SynthConfig, order: Indices) -> Iterator[str]:
    for row in order.tolist():
        cluster = row % config.clusters
        yield f"{_ADJECTIVES[row % len(_ADJECTIVES)]} {_NOUNS[cluster % len(_NOUNS)]} {row}"
