"""Lists read by faiss, the extra ``speed``: the same answers in less time, for a copy of the vectors in each process.

faiss finds what scores best by vectors of 8 bits a coordinate, and the bundle's own scores rank that again. How far the
two may be apart is known: where something that faiss left out could be among the best, numpy reads the lists.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from tlrec_edge.bundle import Bundle
from tlrec_edge.bundle_check import REMEDY
from tlrec_edge.errors import BundleError, MissingExtraError
from tlrec_edge.lists import Floats, Lists, Places, Score, asked_of
from tlrec_edge.vectors import stored_vectors

_LANES = 16
"""faiss is several times slower where a vector is no multiple of so many coordinates."""
_MOST = 1000
"""Beyond so many, ranking again costs more than faiss saves."""
_ROUNDING = 1e-5


class FaissLists(Lists):
    """The lists of one bundle in an inverted file of faiss; safe to read from many threads.

    Raises MissingExtraError where faiss is not installed.
    """

    def __init__(self, bundle: Bundle) -> None:
        super().__init__(bundle)
        faiss = _faiss()
        self._parameters, self._pointer = faiss.SearchParametersIVF, faiss.swig_ptr
        array, form = bundle.array, bundle.shape.candidate_format
        vectors, bias = stored_vectors(form, array("candidate_rows"), array("candidate_scale")), array("candidate_bias")
        lists, width = self._centres.shape
        self._free = -width % _LANES

        def read(start: int, stop: int) -> Floats:
            part = vectors(start, stop)
            return self._filled(np.concatenate([part, np.zeros((len(part), 1)), bias[start:stop, None]], 1))

        if (self._starts[1:] <= self._starts[:-1]).any():
            raise BundleError(f"{bundle.path / 'list_starts.npy'} is not in rising order; {REMEDY}")
        runs = list(itertools.pairwise(self._starts.tolist()))
        ends = np.array([(part.min(0), part.max(0)) for part in itertools.starmap(read, runs)])
        low, high = ends[:, 0].min(0), ends[:, 1].max(0)
        likely = faiss.IndexFlatIP(width + self._free)
        likely.add(self._filled(self._centres))
        bits, product = faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT
        self._index = faiss.IndexIVFScalarQuantizer(likely, likely.d, lists, bits, product, False)
        self._index.sq.rangestat = faiss.ScalarQuantizer.RS_minmax
        self._index.train(np.stack([low, high]))
        with _one_thread(faiss):
            for number, (start, stop) in enumerate(runs):
                rows, codes = np.arange(start, stop), self._index.sq.compute_codes(read(start, stop))
                self._index.invlists.add_entries(number, len(rows), self._pointer(rows), self._pointer(codes))
        self._index.ntotal = len(bias)
        # A coordinate is off by half a step of 255 at most; and what float32 sums may hide.
        self._off = (high - low) / 510 + _ROUNDING * np.maximum(np.abs(low), np.abs(high))

    @property
    def nbytes(self) -> int:
        """The bytes of the copy: vectors and row numbers."""
        return int(self._index.ntotal * (self._index.code_size + 8))

    def _filled(self, vectors: Any) -> Floats:
        filled = np.zeros((len(vectors), vectors.shape[1] + self._free), np.float32)
        filled[:, : vectors.shape[1]] = vectors
        return filled

    def _search(self, user: Floats, count: int, most: int, score: Score) -> tuple[Places, Floats]:
        if most > _MOST:
            return super()._search(user, count, most, score)
        asked = self._filled(asked_of(user)[None])
        lists = self._likeliest(user, count)  # not faiss's choice, which is another among equals
        likely, rows = self._find(asked, 2 * most + 32, lists)
        least = likely[-1] + np.abs(asked[0]).dot(self._off)  # what is left out scores no more
        places = np.sort(rows)
        if places[0] < 0:  # fewer than asked for: all there is
            places, least = places[places >= 0], -np.inf
        scores = score(places)
        # Of equals the lower row comes first: it may be left out.
        if len(scores) >= most and not np.partition(scores, len(scores) - most)[len(scores) - most] > least:
            return super()._search(user, count, most, score)
        return places, scores

    def _find(self, asked: Floats, most: int, lists: Places) -> tuple[Floats, Places]:
        """Return the ``most`` best scores of some lists, best first, and their rows, -1 where there are fewer."""
        likely, rows = np.empty(most, np.float32), np.empty(most, np.int64)
        parts = asked, lists, np.zeros(len(lists), np.float32), likely, rows
        query, assigned, distances, *found = map(self._pointer, parts)
        parameters = self._parameters(nprobe=len(lists))  # which faiss's own wrapper does not take
        self._index.search_preassigned_c(1, query, most, assigned, distances, *found, False, parameters)
        return likely, rows


@contextmanager
def _one_thread(faiss: Any) -> Iterator[None]:
    """Have this thread start no others in faiss: in the child of a fork it would wait for those of its parent."""
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(threads)


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise MissingExtraError("a search by faiss", "speed") from error
    return faiss
