"""Matrices of low rank: a truncated SVD that repeats, and its two factors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from tlrec_edge.types import Floats

BLOCK_ROWS = 500_000


def truncated_svd(
    matrix: sp.csr_array | Floats, rank: int, iterations: int = 4
) -> tuple[Floats, Floats, Floats]:
    """Return a truncated SVD (left, values, right), largest value first, the same for the same input.

    Randomized subspace iteration (Halko, Martinsson and Tropp, SIAM Review 2011) from a fixed start: scipy's svds
    restarts from unseeded noise where the matrix has a low rank.
    """
    width = min(rank + 16, *matrix.shape)
    a = sp.csr_array(matrix.astype(np.float64)) if sp.issparse(matrix) else matrix
    transposed = sp.csr_array(a.T) if sp.issparse(matrix) else a.T
    basis = np.linalg.qr(
        a @ np.random.default_rng(0).standard_normal((a.shape[1], width)).astype(a.dtype)
    )[0]
    for _ in range(
        iterations if width < min(matrix.shape) else 0
    ):  # a basis of everything is exact at once
        basis = np.linalg.qr(a @ np.linalg.qr(transposed @ basis)[0])[0]
    left, values, right = np.linalg.svd((transposed @ basis).T, full_matrices=False)
    kept = slice(0, rank)
    return (
        (basis @ left[:, kept]).astype(np.float32),
        values[kept].astype(np.float32),
        right[kept].T.astype(np.float32),
    )


def right_singular_vectors(
    matrix: sp.csr_array, rank: int, iterations: int = 4
) -> tuple[Floats, Floats]:
    """Return values and right vectors (columns, rank) of ``truncated_svd`` without anything dense of all rows at once."""
    width = min(rank + 16, *matrix.shape)

    def apply_gram(basis: Floats) -> Floats:
        total = np.zeros_like(basis)
        for first in range(0, matrix.shape[0], BLOCK_ROWS):
            part = matrix[first : first + BLOCK_ROWS]
            total += part.T @ (part @ basis)
        return total

    basis = np.random.default_rng(0).standard_normal((matrix.shape[1], width)).astype(np.float32)
    for _ in range(iterations + 1):
        basis = np.linalg.qr(apply_gram(basis))[0]
    squares, rotation = np.linalg.eigh((basis.T @ apply_gram(basis)).astype(np.float64))
    values = np.sqrt(np.maximum(squares[::-1][:rank], 0.0)).astype(np.float32)
    return values, basis @ rotation[:, ::-1][:, :rank].astype(np.float32)


@dataclass(frozen=True)
class LowRankFactors:
    """A matrix of low rank, ``input_factors @ output_factors.T``: input_factors (n, r), output_factors (C, r)."""

    input_factors: Floats
    output_factors: Floats

    @classmethod
    def of(cls, left: Floats, values: Floats, right: Floats) -> LowRankFactors:
        """Build from an SVD; ``output_factors`` gets mean square 1, so that blocks of it can share a scale once quantized."""
        output_factors = right * np.sqrt(values)
        size = float(np.sqrt(np.mean(output_factors**2))) if output_factors.any() else 1.0
        return cls(
            (left * np.sqrt(values) * size).astype(np.float32),
            (output_factors / size).astype(np.float32),
        )

    @classmethod
    def none(cls, rows: int, columns: int) -> LowRankFactors:
        return cls(np.zeros((rows, 0), np.float32), np.zeros((columns, 0), np.float32))

    @property
    def rank(self) -> int:
        return int(self.output_factors.shape[1])
