"""The features of items, and the vectors training starts from."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import scipy.sparse as sp

from tlrec_edge.core.features import FeatureEncoder, TextSource, TowerInputs, hash_tokens
from tlrec_edge.data.dataset import Dataset, Interactions, ItemTable
from tlrec_edge.errors import DataError, ModelError
from tlrec_edge.linear.low_rank import right_singular_vectors, truncated_svd
from tlrec_edge.train.text import HASHED, TextEncoder, open_encoder
from tlrec_edge.types import Bools, Floats, Ints

BUCKETS = 8_192
TEXT_WIDTH, ENCODER_WIDTH = 64, 128
"""Widths that text vectors are cut to: of hashed words, and of a pretrained encoder, whose small axes still tell
which titles are near (see examples/cold_items)."""
N_QUANTILES = 33
MAX_TEXTS = 20_000
MAX_DENSE_GROUPS = 1_000_000
"""Baskets or users up to which a dense vector of each is held (0.6 KB)."""
MIN_DOMAIN_ITEMS = 50
"""Items with a number that a domain needs to have knots of its own."""


@lru_cache(maxsize=1)
def fit_features(dataset: Dataset, text: str = HASHED) -> FeatureEncoder:
    """Fit the feature schema on all items: vocabularies, quantile knots, and text vectors.

    Those are latent semantic vectors of hashed words, or with another ``text`` a pretrained encoder's (see ``text``).
    Features of the target's items are known before anyone buys there, so they take part; no behaviour is looked at.
    """
    table = dataset.features
    vocabulary = {
        name: tuple(sorted(set(values) - {""})) for name, values in table.categorical.items()
    }
    everywhere = np.ones(len(table), bool)
    homes = (
        {name: dataset.item_domain == code for code, name in enumerate(dataset.domains)}
        if table.by_domain
        else {}
    )
    own = {name: _quantiles(table, home, MIN_DOMAIN_ITEMS) for name, home in homes.items()}
    columns = (*table.text, *vocabulary)
    raw = raw_columns(dataset)
    texts = sorted(
        {" ".join(row) for row in zip(*(map(str, raw[name]) for name in columns), strict=True)}
    )
    encoder = None if text == HASHED else open_encoder(text)
    return FeatureEncoder(
        tuple(table.text),
        vocabulary,
        _quantiles(table, everywhere, 1),
        _lsa_table(texts) if encoder is None else _pca_axes(encoder, texts),
        {name: knots for name, knots in own.items() if knots},
        table.aliases,
        None if encoder is None else TextSource(encoder.name, encoder.width),
    )


def _quantiles(table: ItemTable, items: Bools, min_items: int) -> dict[str, tuple[float, ...]]:
    """Return the rising knots of each numeric column that ``min_items`` of these items have."""
    quantiles = {}
    for name, values in table.numeric.items():
        finite = values[items & np.isfinite(values)]
        if len(finite) >= min_items:
            knots = np.quantile(finite.astype(np.float64), np.linspace(0.0, 1.0, N_QUANTILES))
            quantiles[name] = tuple(np.maximum.accumulate(knots).tolist())
    return quantiles


def raw_columns(dataset: Dataset) -> dict[str, Sequence[Any]]:
    """Return all feature columns by name."""
    table = dataset.features
    return {
        **table.text,
        **table.categorical,
        **{name: values.tolist() for name, values in table.numeric.items()},
    }


def encode_features(
    dataset: Dataset, encoder: FeatureEncoder, rows: Ints, text: str = HASHED
) -> TowerInputs:
    """Encode the features of dataset rows for the item tower. Raises ModelError where ``text`` is another encoder."""
    every = _encode_all(dataset, encoder, text)
    return TowerInputs(every.text[rows], every.numeric[rows], every.categories[rows])


@lru_cache(maxsize=1)
def _encode_all(dataset: Dataset, encoder: FeatureEncoder, text: str) -> TowerInputs:
    # Folds and modes of one dataset ask for the same items again and again.
    homes = [dataset.domains[code] if code >= 0 else "" for code in dataset.item_domain]
    columns, n = raw_columns(dataset), len(dataset.items)
    return encoder.encode(
        columns, n, _text_vectors(encoder, encoder.texts(columns, n), text), homes
    )


def _text_vectors(features: FeatureEncoder, texts: list[str], text: str) -> Floats | None:
    """Return the vectors of a pretrained encoder, (n, width), if the features were fitted on one."""
    if text == HASHED and features.text is None:
        return None
    encoder = None if text == HASHED else open_encoder(text)
    found = None if encoder is None else TextSource(encoder.name, encoder.width)
    if encoder is None or found != features.text:
        raise ModelError(
            f"the source model reads texts by {_label(features.text)}, not by {_label(found)}: give --text what it "
            "was trained with, or pretrain it again"
        )
    distinct = {words: place for place, words in enumerate(dict.fromkeys(texts))}
    return encoder.encode(list(distinct))[[distinct[words] for words in texts]]


def _label(source: TextSource | None) -> str:
    return repr(HASHED) if source is None else f"{source.encoder!r} ({source.width} wide)"


def _pca_axes(encoder: TextEncoder, texts: list[str]) -> Floats:
    """Fit the directions in which the unit vectors of the texts differ most, (encoder.width, t): their PCA's axes."""
    if not any(texts):
        raise DataError(f"text encoder {encoder.name}: the items have no text; leave it out")
    vectors = encoder.encode(_sample_texts(texts))
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-12)
    centred = (unit - unit.mean(0)).astype(np.float64)
    _, axes = np.linalg.eigh(centred.T @ centred)  # rising
    table: Floats = (
        axes[:, ::-1][:, :ENCODER_WIDTH].astype(np.float16).astype(np.float32)
    )  # as a bundle stores it
    return table


def _sample_texts(texts: list[str]) -> list[str]:
    if len(texts) <= MAX_TEXTS:
        return texts
    return [texts[i] for i in np.random.default_rng(0).choice(len(texts), MAX_TEXTS, replace=False)]


def _lsa_table(texts: list[str]) -> Floats:
    """Fit latent semantic analysis on hashed tokens; the table maps a bucket to its idf-weighted direction."""
    texts = _sample_texts(texts)
    bucket, row = hash_tokens(texts, BUCKETS)
    if not len(bucket):
        return np.zeros((0, 0), np.float32)
    counts = sp.csr_array(
        (np.ones(len(bucket), np.float32), (row, bucket)), shape=(len(texts), BUCKETS)
    )
    frequency = np.bincount(counts.indices, minlength=BUCKETS)
    idf = np.log((1.0 + len(texts)) / (1.0 + frequency)).astype(np.float32)
    weighted = sp.csr_array(counts.multiply(idf[None, :]))
    scale = np.sqrt(np.asarray(weighted.multiply(weighted).sum(1))).clip(1e-6)
    weighted = sp.csr_array(weighted.multiply(1.0 / scale[:, None]))
    width = min(TEXT_WIDTH, min(weighted.shape) - 1)
    if width < 1:
        return np.zeros((0, 0), np.float32)
    _, values, right = truncated_svd(weighted, width)
    right[:, values < 1e-4 * values[0]] = 0.0  # directions that no text takes
    table = np.where(frequency[:, None] > 0, idf[:, None] * right, 0.0)
    return table.astype(np.float16).astype(np.float32)  # a bundle stores it in half precision


def cooccurrence_vectors(
    log: Interactions, rows: Ints, items: int, width: int, by_basket: bool
) -> Floats:
    """Return spectral item vectors (items, width): the SVD of the degree-normalised group-by-item matrix.

    A group is a basket (user and time) or a whole user. Items that share groups point the same way; items never seen
    are 0. Training that starts here needs a few epochs where a random start needs many.
    """
    item = rows[log.item]
    known = item >= 0
    begins = (
        log.user[1:] != log.user[:-1]
    )  # a log is sorted by user and time, so groups stand together
    if by_basket:
        begins |= log.time[1:] != log.time[:-1]
    code = np.append(0, np.cumsum(begins))
    matrix = sp.csr_array(
        (np.ones(int(known.sum()), np.float32), (code[known], item[known])),
        shape=(code.max() + 1, items),
    )
    matrix.data[:] = 1.0
    by_group, by_item = np.diff(matrix.indptr), np.bincount(matrix.indices, minlength=items)
    left = sp.dia_array(
        (1.0 / np.sqrt(by_group.clip(1))[None, :], 0), shape=(len(by_group), len(by_group))
    )
    right = sp.dia_array((1.0 / np.sqrt(by_item.clip(1))[None, :], 0), shape=(items, items))
    normal = sp.csr_array(left @ matrix @ right).astype(np.float32)
    rank = min(width, min(normal.shape) - 1)
    vectors = np.zeros((items, width), np.float32)
    if rank > 0:
        if normal.shape[0] <= MAX_DENSE_GROUPS:
            _, values, axes = truncated_svd(normal, rank)
        else:
            values, axes = right_singular_vectors(normal, rank)
        unit = axes * values / np.sqrt(by_item.clip(1))[:, None]
        vectors[:, :rank] = unit / np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-9)
        vectors[by_item == 0] = 0.0
    return vectors
