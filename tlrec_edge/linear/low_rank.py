"""Low-rank matrices: a reproducible truncated SVD, and its two factors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from tlrec_edge.types import Floats

ROWS_PER_BLOCK = 100_000
OVERSAMPLING = 16
"""Directions that subspace iteration follows beyond the rank: the last ones converge slowly."""


def truncated_svd(
    matrix: sp.csr_array | Floats, rank: int, iterations: int = 4
) -> tuple[Floats, Floats, Floats]:
    """Return a truncated SVD (left, values, right), largest value first.

    Randomized subspace iteration (Halko, Martinsson and Tropp, SIAM Review 2011) from a fixed seed.
    The result is deterministic; scipy's ``svds`` restarts from unseeded noise if the matrix has
    a low rank.
    """
    width = min(rank + OVERSAMPLING, *matrix.shape)
    a = sp.csr_array(matrix.astype(np.float64)) if sp.issparse(matrix) else matrix
    transposed = sp.csr_array(a.T) if sp.issparse(matrix) else a.T
    noise = np.random.default_rng(0).standard_normal((a.shape[1], width)).astype(a.dtype)
    basis = np.linalg.qr(a @ noise)[0]
    if width < min(matrix.shape):  # else the basis already spans the whole matrix
        for _ in range(iterations):
            basis = np.linalg.qr(a @ np.linalg.qr(transposed @ basis)[0])[0]
    left, values, right = np.linalg.svd((transposed @ basis).T, full_matrices=False)
    return (
        (basis @ left[:, :rank]).astype(np.float32),
        values[:rank].astype(np.float32),
        right[:rank].T.astype(np.float32),
    )


def right_singular_vectors(
    matrix: sp.csr_array, rank: int, iterations: int = 4
) -> tuple[Floats, Floats]:
    """Return the values and the right vectors (columns, rank) of ``truncated_svd``.

    Works on ``X'X`` in blocks of rows, so that no dense array has one row per row of the matrix.
    Squaring costs precision in the small singular values; the largest ones are not affected.
    """
    width = min(rank + OVERSAMPLING, *matrix.shape)

    def apply_gram(basis: Floats) -> Floats:
        total = np.zeros_like(basis)
        for first in range(0, matrix.shape[0], ROWS_PER_BLOCK):
            block = matrix[first : first + ROWS_PER_BLOCK]
            total += block.T @ (block @ basis)
        return total

    basis = np.random.default_rng(0).standard_normal((matrix.shape[1], width)).astype(np.float32)
    for _ in range(iterations + 1):
        basis = np.linalg.qr(apply_gram(basis))[0]
    squares, rotation = np.linalg.eigh((basis.T @ apply_gram(basis)).astype(np.float64))
    values = np.sqrt(np.maximum(squares[::-1][:rank], 0.0)).astype(np.float32)
    return values, basis @ rotation[:, ::-1][:, :rank].astype(np.float32)


@dataclass(frozen=True)
class LowRankFactors:
    """A matrix of low rank as ``input_factors @ output_factors.T``.

    Attributes:
        input_factors: (n, r).
        output_factors: (C, r), with a mean square of 1.
    """

    input_factors: Floats
    output_factors: Floats

    @classmethod
    def of(cls, left: Floats, values: Floats, right: Floats) -> LowRankFactors:
        """Build the factors from an SVD.

        The scale goes into ``input_factors``: several blocks of ``output_factors`` are quantized
        together, so they need a common scale.
        """
        output_factors = right * np.sqrt(values)
        scale = float(np.sqrt(np.mean(output_factors**2))) if output_factors.any() else 1.0
        return cls(
            (left * np.sqrt(values) * scale).astype(np.float32),
            (output_factors / scale).astype(np.float32),
        )

    @classmethod
    def none(cls, rows: int, columns: int) -> LowRankFactors:
        """Return the factors of a zero matrix, of rank 0."""
        return cls(np.zeros((rows, 0), np.float32), np.zeros((columns, 0), np.float32))

    @property
    def rank(self) -> int:
        return int(self.output_factors.shape[1])
