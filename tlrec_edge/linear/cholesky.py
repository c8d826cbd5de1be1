"""Solve a penalized Gram matrix by Cholesky, in single precision if that is exact enough."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.linalg import blas, lapack

from tlrec_edge.types import Floats

MIN_RECIPROCAL_CONDITION = 1e-4
"""Below it single precision would lose more than about three of its seven digits: the matrix is
factored in double precision instead."""
_SHARE_OF_FULL_INVERSE = 1 / 2
"""Share of the columns beyond which the whole inverse takes fewer operations."""
_MAX_SPARSE_DENSITY = 1 / 2
"""Share of entries up to which the matrix takes less memory if it is stored as a sparse one."""


class PenalizedGram:
    """The matrices ``G + pI`` for penalties p and a positive semidefinite ``G`` (n, n).

    ``G`` is symmetric and has no negative entry, as counts of shared buyers.

    Rows and columns are scaled so that the diagonal is 1, which brings the condition number close
    to the smallest that any scaling reaches (van der Sluis, 1969): popular items have counts that
    are thousands of times those of rare ones. The matrix is then factored in single precision,
    which takes half the time, unless it is too badly conditioned.
    """

    def __init__(self, gram: sp.csr_array) -> None:
        n = gram.shape[0]
        self._gram = gram if gram.nnz <= _MAX_SPARSE_DENSITY * n * n else gram.toarray()

    def last_inverse_columns(self, penalty: float, count: int) -> NDArray[Any]:
        """Return the last ``count`` columns of the inverse of ``G + pI``, (n, count)."""
        n = self._gram.shape[0]
        first = n - count
        if count > n * _SHARE_OF_FULL_INVERSE:
            return self.inverse(penalty)[:, first:]
        # With L L'x = e: y = L^-1 e is zero above the last block, so only L'x = y takes long.
        factor, scale = self._factor(penalty)
        last, _ = _routine(lapack, "trtri", factor)(factor[first:, first:], lower=True)
        inverse = np.zeros((n, count), factor.dtype, order="F")
        inverse[first:] = np.tril(last)
        solve = _routine(blas, "trsm", factor)
        inverse = solve(1.0, factor, inverse, lower=True, trans_a=True, overwrite_b=True)
        inverse *= scale[:, None]
        inverse *= scale[first:]
        return cast(NDArray[Any], inverse)

    def inverse(self, penalty: float) -> NDArray[Any]:
        """Return the inverse of ``G + pI``, (n, n)."""
        factor, scale = self._factor(penalty)
        inverse, _ = _routine(lapack, "potri", factor)(factor, lower=True, overwrite_c=True)
        _mirror_lower(inverse)
        inverse *= scale[:, None]
        inverse *= scale
        return cast(NDArray[Any], inverse)

    def _factor(self, penalty: float) -> tuple[NDArray[Any], Floats]:
        """Return the lower Cholesky factor of the scaled matrix, and the scale (n,)."""
        for dtype in (np.float32, np.float64):
            matrix = self._penalized(penalty, dtype)
            scale = 1.0 / np.sqrt(matrix.diagonal())
            matrix *= scale[:, None]
            matrix *= scale
            # Column sums of the scaled matrix; without a copy of it, since no entry is negative.
            sums = scale * (self._gram @ scale) + penalty * scale**2
            norm = float(sums.max())
            factor, failed = _routine(lapack, "potrf", matrix)(
                matrix, lower=True, clean=False, overwrite_a=True
            )
            if failed:
                continue
            rcond, _ = _routine(lapack, "pocon", factor)(factor, norm, uplo="L")
            if rcond >= MIN_RECIPROCAL_CONDITION or dtype is np.float64:
                return factor, scale
        raise np.linalg.LinAlgError(f"the matrix is not positive definite with penalty {penalty:g}")

    def _penalized(self, penalty: float, dtype: type) -> NDArray[Any]:
        """Return ``G + pI`` in column-major order, as LAPACK wants it; ``G`` is symmetric."""
        gram = self._gram
        dense = gram.astype(dtype).toarray() if sp.issparse(gram) else np.array(gram, dtype)
        dense[np.diag_indices_from(dense)] += penalty
        return dense.T


def _routine(library: Any, name: str, matrix: NDArray[Any]) -> Any:
    return getattr(library, ("s" if matrix.dtype == np.float32 else "d") + name)


def _mirror_lower(matrix: NDArray[Any], block: int = 512) -> None:
    """Copy the lower triangle of a square matrix to the upper one."""
    for start in range(0, len(matrix), block):
        end = start + block
        matrix[start:end, end:] = matrix[end:, start:end].T
        square = np.tril(matrix[start:end, start:end])
        matrix[start:end, start:end] = square + np.tril(square, -1).T
