"""The random tables of a synthetic bundle, written in chunks.

Items form clusters, popularity follows Zipf's law, and item-item weights stay within a cluster. The
item of row i belongs to cluster i modulo the number of clusters. Large tables are filled through
memory maps, so memory grows with the ids and one number per item, but not with the tables.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tlrec_edge.bench.synth_config import SynthConfig
from tlrec_edge.bundle.format import UNIFORM_KINDS, ModelShape, column_dtype
from tlrec_edge.bundle.writer import BundleWriter
from tlrec_edge.core.rowwise import quantize_sparse
from tlrec_edge.types import Floats, Indices, Longs

_CHUNK = 65_536
_WITHIN_CLUSTER = 0.5
"""Spread of an item around the centre of its cluster, relative to the spread of the centres."""
_CANDIDATE_NOISE = 0.2
"""Spread of an item's vector as a candidate around its vector in histories."""
_GOLDEN_RATIO = 0.618
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


def write_vectors(
    writer: BundleWriter, config: SynthConfig, shape: ModelShape, rng: np.random.Generator
) -> None:
    """Write the vectors of items in histories and as candidates."""
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
        spread = _WITHIN_CLUSTER * deviation * rng.standard_normal(centroid.shape, np.float32)
        vectors = (centroid + spread) * np.float32(d**-0.5)
        history_rows[start:end], scale = history.quantize(vectors)
        history_scale[start:end] = scale[:, 0]
        if start >= c:
            continue
        end = min(end, c)
        noise = rng.normal(0, _CANDIDATE_NOISE * d**-0.5, (end - start, d)).astype(np.float32)
        deep = vectors[: end - start] + deviation * noise
        interest = rng.normal(0, 0.1, (end - start, r)).astype(np.float32)
        candidate_rows[start:end], candidate_scale[start:end] = candidate.quantize(deep, interest)
    writer.array("history_scale", history_scale)
    writer.array("candidate_scale", candidate_scale)


def write_bias(writer: BundleWriter, config: SynthConfig) -> None:
    """Write the log popularity of the candidates.

    A full cycle spreads the popularity ranks over the rows without a table of them.
    """
    bias = writer.create("candidate_bias", "<f4", (config.items,))
    step = _coprime(config.items)
    for start, end in _chunks(config.items):
        bias[start:end] = popularity_bias(config, np.arange(start, end) * step % config.items)


def popularity_bias(config: SynthConfig, rank: Longs) -> Floats:
    """Return the log popularity of a rank under Zipf's law, on the scale of the scores."""
    return (-config.popularity * np.log1p(rank)).astype(np.float32)


def write_item_weights(writer: BundleWriter, config: SynthConfig, rng: np.random.Generator) -> None:
    """Write the item-item weights, at most ``config.wide`` per row."""
    n, clusters = config.rows, config.clusters
    cluster_size = config.items // clusters
    max_weights = min(config.wide, cluster_size)
    lengths = (
        rng.integers(max_weights // 2, max_weights + 1, n) if max_weights else np.zeros(n, np.int64)
    )
    indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    is_int8, count = config.weights == "int8", (int(indptr[-1]),)
    column_type = column_dtype(config.items) if is_int8 else "<i4"
    columns = writer.create("wide_columns", column_type, count)
    values = writer.create("wide_values", "|i1" if is_int8 else "<f4", count)
    scale = np.ones(n, np.float16)
    for start, end in _chunks(n if max_weights else 0):
        max_step = cluster_size // max_weights
        steps = rng.integers(1, max_step + 1, (end - start, max_weights))
        # The members of a cluster lie ``clusters`` rows apart, so ascending member numbers are
        # ascending columns.
        members = np.cumsum(steps, axis=1) - 1
        cluster = np.arange(start, end) % clusters
        candidates = members * clusters + cluster[:, None]  # (rows, max_weights)
        mask = np.arange(max_weights) < lengths[start:end, None]
        span = slice(int(indptr[start]), int(indptr[end]))
        columns[span] = candidates[mask]
        weights = rng.exponential(0.1, span.stop - span.start).astype(np.float32)
        if is_int8:
            row_ends = indptr[start : end + 1] - indptr[start]
            values[span], scale[start:end] = quantize_sparse(weights, row_ends)
        else:
            values[span] = weights
    writer.array("wide_indptr", indptr)
    if is_int8:
        writer.array("wide_scale", scale)


def write_small_tables(writer: BundleWriter, config: SynthConfig, rng: np.random.Generator) -> None:
    """Write the category of each item, the interest weights and the biases of the encoder."""
    groups = (np.arange(config.rows) % config.clusters % config.groups).astype(np.int32)
    interest = rng.normal(0, 0.1, (config.groups, config.interest)).astype(np.float32)
    writer.array("groups", groups[:, None])
    writer.array("interest_in", interest)
    writer.array("position_bias", np.linspace(-1, 0, config.length, dtype=np.float32))
    writer.array("event_bias", np.array([-0.5, -0.3, 0.0, 0.3, 0.0], np.float32))
    writer.array("age_bias", np.linspace(0, -1, 12, dtype=np.float32))


def write_names(writer: BundleWriter, config: SynthConfig, order: Indices) -> None:
    """Write ids and names of the items in the order of the tables' rows."""
    writer.strings("item_ids", (f"SKU{row:08d}" for row in order.tolist()), index=True)
    writer.strings("item_names", _names(config, order))


def _names(config: SynthConfig, order: Indices) -> Iterator[str]:
    for row in order.tolist():
        cluster = row % config.clusters
        yield f"{_ADJECTIVES[row % len(_ADJECTIVES)]} {_NOUNS[cluster % len(_NOUNS)]} {row}"


def _deviations(d: int) -> Floats:
    """Return the standard deviation of each coordinate, with root mean square 1.

    The k-th axis has 1 / k of the variance of the first, as in trained models: their first 16 axes
    hold 86 to 99 % of it, these 71 % at d = 64.
    """
    variance = 1.0 / np.arange(1.0, d + 1)
    deviation: Floats = np.sqrt(variance * d / variance.sum()).astype(np.float32)
    return deviation


def _coprime(n: int) -> int:
    """Return a step near 0.618 n that visits all of 0..n-1."""
    step = max(1, int(n * _GOLDEN_RATIO))
    while np.gcd(step, n) != 1:
        step += 1
    return step


def _chunks(n: int) -> Iterator[tuple[int, int]]:
    for start in range(0, n, _CHUNK):
        yield start, min(n, start + _CHUNK)
