"""Systems that search item vectors for a user's vector: the vectors of the bundle."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from ..agree import recall
from ..contender import Answer, Call, Contender
from ..data import Data

RECALL = {10: 0.99, 100: 0.97}
"""Recall that an approximate index must reach, by k."""
_NEGLIGIBLE_RECALL = 0.002


class _Vectors(Contender):
    """A search: ``find`` returns the scores and rows of the k best items for a query."""

    def find(self, query: Any, k: int) -> tuple[Any, Any]:
        raise NotImplementedError

    def top(self) -> Call:
        return self._top(10)

    def top100(self) -> Call:
        return self._top(100)

    def _top(self, k: int) -> Call:
        queries = self.queries()

        def read(i: int, found: Any) -> Answer:
            scores, rows = (np.array(part).reshape(-1) for part in found)
            present = rows >= 0  # faiss pads with -1 if it finds too few
            return Answer(rows[present], scores[present])

        return Call(lambda i: (queries[i : i + 1], k), self.find, read)

    def queries(self) -> Any:
        return self.data.load("queries-fast")

    def tune(self) -> dict[str, Any]:
        """Choose the smallest effort that reaches ``RECALL``.

        If none does, choose the smallest that hardly gains from more.
        """
        queries, vectors = self.data.load("queries-fast"), self.data.load("vectors")
        truth = [vectors @ query for query in queries[:32]]
        margins: dict[int, float] = {}
        for effort in self.efforts():
            self.set_effort(effort)
            margins[effort] = min(self._recall(k, truth) - minimum for k, minimum in RECALL.items())
            if margins[effort] >= 0:
                return {"effort": effort, "reached": True}
        best = max(margins.values())
        effort = next(
            effort for effort, margin in margins.items() if margin >= best - _NEGLIGIBLE_RECALL
        )
        self.set_effort(effort)
        return {"effort": effort, "reached": False}

    def _recall(self, k: int, truth: list[Any]) -> float:
        call = self._top(k)
        found = [call.read(i, self.find(*call.prepare(i))) for i in range(len(truth))]  # type: ignore[misc]  # of *
        return float(np.mean([recall(a.rows, t, k) for a, t in zip(found, truth, strict=True)]))

    def efforts(self) -> list[int]:
        return [0]

    def set_effort(self, effort: int) -> None:
        pass


class _Faiss(_Vectors):
    """An index of faiss by its factory string."""

    key = "Flat"

    def __init__(self, data: Data, model: str) -> None:
        super().__init__(data, model)
        import faiss

        faiss.omp_set_num_threads(1)
        self._index = faiss.read_index(str(data.path(f"{self.key}.faiss")))

    @classmethod
    def make(cls, vectors: Any) -> Any:
        """Build the index."""
        import faiss

        index = faiss.index_factory(vectors.shape[1], cls.key, faiss.METRIC_INNER_PRODUCT)
        index.train(_shuffled(vectors))
        index.add(vectors)
        return index

    @classmethod
    def build(cls, data: Data, model: str) -> None:
        import faiss

        path = data.path(f"{cls.key}.faiss")
        if not path.is_file():
            faiss.write_index(cls.make(np.array(data.load("vectors"))), str(path))

    def find(self, query: Any, k: int) -> tuple[Any, Any]:
        found: tuple[Any, Any] = self._index.search(query, k)
        return found


class FaissFlat(_Faiss):
    """An exact scan of floats."""

    about = "IndexFlatIP, one thread"
    top_exact = _Vectors.top


class FaissSq8(_Faiss):
    """A scan of vectors in 8 bits."""

    about = "IndexScalarQuantizer, 8 bits; the best 2k ranked again by floats (SQ8,RFlat)"
    key, exact = "SQ8,RFlat", False

    def __init__(self, data: Data, model: str) -> None:
        super().__init__(data, model)
        self._index.k_factor = 2


class FaissIvf(_Faiss):
    """An inverted-file index."""

    about = (
        "IVF of 4 sqrt(n) lists by distance, probed by inner product, SQ8 of residuals; "
        "the smallest nprobe that reaches the recall"
    )
    key, exact = "IVF,SQ8", False

    @classmethod
    def make(cls, vectors: Any) -> Any:
        """Assign vectors to the nearest centre.

        ``index_factory`` assigns them to the centre of length 1 with the largest inner product. At
        a million items some residuals are then outside the range that the quantizer was trained on
        (an error of .56 standard deviations), and the same recall takes four times the lists.
        """
        import faiss

        d, lists = vectors.shape[1], 1 << int(np.log2(4 * len(vectors) ** 0.5))
        centres = faiss.IndexFlatL2(d)
        bits = faiss.ScalarQuantizer.QT_8bit
        index = faiss.IndexIVFScalarQuantizer(
            centres, d, lists, bits, faiss.METRIC_INNER_PRODUCT, True
        )
        index.cp.spherical = False
        # A range a tenth wider than the sample's; without it the error was .11 standard deviations.
        index.sq.rangestat_arg = 0.1
        index.train(_shuffled(vectors))
        index.add(vectors)
        centres.metric_type = faiss.METRIC_INNER_PRODUCT
        return index

    def efforts(self) -> list[int]:
        return [1, 2, 3, 4, 6, 8, 12, 16, 20, 24, 28, 32, 40, 48, 64, 96, 128, 256]

    def set_effort(self, effort: int) -> None:
        self._index.nprobe = effort


class FaissIvfRerank(FaissIvf):
    """The inverted-file index with exact scores of its best."""

    about = "the same, the best 2k ranked again by floats (IndexRefineFlat)"

    def __init__(self, data: Data, model: str) -> None:
        super().__init__(data, model)
        import faiss

        self._lists, vectors = self._index, np.ascontiguousarray(data.load("vectors"))
        self._index = faiss.IndexRefineFlat(self._lists, faiss.swig_ptr(vectors))  # copies them
        self._index.k_factor = 2

    def set_effort(self, effort: int) -> None:
        self._lists.nprobe = effort


class Hnsw(_Vectors):
    """Inner products as distances, in one more dimension (Bachrach et al. 2014, RecSys).

    With hnswlib's space "ip", which is not a metric, recall stays at .98 and .91 with M 32 and
    ef 1,600.
    """

    about = (
        "hnswlib, M 16, ef_construction 200, the smallest ef that reaches the recall; "
        "L2 in one more dimension"
    )
    exact = False

    def __init__(self, data: Data, model: str) -> None:
        super().__init__(data, model)
        import hnswlib

        vectors = data.load("vectors")
        self._max_norm = float(np.square(vectors).sum(1).max())
        self._index = hnswlib.Index(space="l2", dim=vectors.shape[1] + 1)
        self._index.load_index(str(data.path("hnsw.bin")))
        self._index.set_num_threads(1)
        self._index.set_ef(200)

    @classmethod
    def build(cls, data: Data, model: str) -> None:
        import hnswlib

        vectors, path = data.load("vectors"), data.path("hnsw.bin")
        if not path.is_file():
            squares = np.square(vectors).sum(1)
            # All points get the same norm.
            points = np.column_stack([vectors, np.sqrt(squares.max() - squares)])
            index = hnswlib.Index(space="l2", dim=points.shape[1])
            index.init_index(max_elements=len(points), ef_construction=200, M=16, random_seed=0)
            rows = _shuffled(np.arange(len(points)))
            index.add_items(points[rows], rows, num_threads=len(os.sched_getaffinity(0)))
            index.save_index(str(path))

    def queries(self) -> Any:
        return np.pad(self.data.load("queries-fast"), ((0, 0), (0, 1)))

    def find(self, query: Any, k: int) -> tuple[Any, Any]:
        rows, distances = self._index.knn_query(query, k)
        return (self._max_norm + float(query[0] @ query[0]) - distances) / 2, rows

    def efforts(self) -> list[int]:
        return [100, 150, 200, 300, 400, 600, 800, 1200, 1600]  # never below k

    def set_effort(self, effort: int) -> None:
        self._index.set_ef(effort)


def _shuffled(rows: Any) -> Any:
    """Return rows in random order: the beginning of a sorted catalogue is not a random sample."""
    return np.random.default_rng(0).permutation(rows)


class Implicit(_Vectors):
    """implicit's matrix factorization with our vectors as factors."""

    tolerance = 0.03  # its stored users are our rounded ones
    about = "AlternatingLeastSquares.recommend with our vectors; a stored user, no encoder"

    def __init__(self, data: Data, model: str) -> None:
        super().__init__(data, model)
        from implicit.cpu.als import AlternatingLeastSquares

        vectors = data.load("vectors")
        self._model = AlternatingLeastSquares(factors=vectors.shape[1], num_threads=1)
        self._model.item_factors = np.array(vectors)
        users = "queries-base" if model == "base" else "queries-fast"
        self._model.user_factors = np.array(data.load(users))

    def request(self) -> Call:
        return self._among(100)

    def cached(self) -> Call:
        return self._among(1000)

    def _among(self, n: int) -> Call:
        candidates, recommend = self.data.load("candidates"), self._model.recommend

        def run(user: int, items: Any) -> Any:
            return recommend(user, None, N=10, filter_already_liked_items=False, items=items)

        return Call(lambda i: (i, candidates[i, :n]), run, lambda i, out: Answer(out[0], out[1]))

    def _top(self, k: int) -> Call:
        recommend = self._model.recommend

        def run(user: int) -> Any:
            return recommend(user, None, N=k, filter_already_liked_items=False)

        return Call(lambda i: (i,), run, lambda i, out: Answer(out[0], out[1]))

    top_exact = _Vectors.top
