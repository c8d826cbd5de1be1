"""Systems that hold item vectors and take a user's vector: the same vectors and the same users as in the bundle."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from ..agree import recall
from ..contender import Answer, Call, Contender
from ..data import Data

RECALL = {10: 0.99, 100: 0.97}
"""What an approximate index must reach, by k."""


class _Vectors(Contender):
    """``find`` (query, k) -> (scores, rows)."""

    def find(self, query: Any, k: int) -> tuple[Any, Any]:
        raise NotImplementedError

    def top(self) -> Call:
        return self._top(10)

    def top100(self) -> Call:
        return self._top(100)

    def _top(self, k: int) -> Call:
        queries = self.data.load("queries-fast")

        def read(i: int, found: Any) -> Answer:
            scores, rows = (np.array(part).reshape(-1) for part in found)
            return Answer(rows[rows >= 0], scores[rows >= 0])  # faiss fills up with -1 where it finds too few

        return Call(lambda i: (queries[i : i + 1], k), self.find, read)

    def tune(self) -> dict[str, Any]:
        """Take the fastest of ``efforts`` that reaches ``RECALL``."""
        queries, vectors = self.data.load("queries-fast"), self.data.load("vectors")
        truth = [vectors @ query for query in queries[:32]]
        reached: dict[int, float] = {}
        for effort in self.efforts():
            self.set_effort(effort)
            for k in RECALL:
                call = self._top(k)
                found = [call.read(i, self.find(*call.prepare(i))) for i in range(len(truth))]  # type: ignore[misc]
                reached[k] = float(np.mean([recall(a.rows, t, k) for a, t in zip(found, truth, strict=True)]))
            if all(reached[k] >= least for k, least in RECALL.items()):
                return {"effort": effort, "reached": True}
        return {"effort": effort, "reached": False}

    def efforts(self) -> list[int]:
        return [0]

    def set_effort(self, effort: int) -> None:
        pass


class _Faiss(_Vectors):
    key = "Flat"
    nprobe = False

    def __init__(self, data: Data, model: str) -> None:
        super().__init__(data, model)
        import faiss

        faiss.omp_set_num_threads(1)
        self._index = faiss.read_index(str(data.path(self._file(data))))

    @classmethod
    def _file(cls, data: Data) -> str:
        return f"{cls.__name__}.faiss"

    @classmethod
    def factory(cls, items: int) -> str:
        return cls.key

    @classmethod
    def build(cls, data: Data, model: str) -> None:
        import faiss

        path, vectors = data.path(cls._file(data)), np.array(data.load("vectors"))
        if not path.is_file():
            index = faiss.index_factory(vectors.shape[1], cls.factory(len(vectors)), faiss.METRIC_INNER_PRODUCT)
            index.train(vectors)
            index.add(vectors)
            faiss.write_index(index, str(path))

    def find(self, query: Any, k: int) -> tuple[Any, Any]:
        found: tuple[Any, Any] = self._index.search(query, k)
        return found


class FaissFlat(_Faiss):
    about = "IndexFlatIP, one thread"
    top_exact = _Vectors.top


class FaissSq8(_Faiss):
    about, key, exact = "IndexScalarQuantizer, 8 bits", "SQ8", False


class FaissIvf(_Faiss):
    about, exact = "IVF of 4 sqrt(n) lists (at most 1024) over SQ8, nprobe as small as the recall allows", False

    @classmethod
    def factory(cls, items: int) -> str:
        return f"IVF{min(1024, 1 << int(np.log2(4 * items**0.5)))},SQ8"

    def efforts(self) -> list[int]:
        return [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 256]

    def set_effort(self, effort: int) -> None:
        self._index.nprobe = effort


class Hnsw(_Vectors):
    about, exact = "hnswlib, M 16, ef_construction 100, ef as small as the recall allows", False

    def __init__(self, data: Data, model: str) -> None:
        super().__init__(data, model)
        import hnswlib

        self._index = hnswlib.Index(space="ip", dim=data.load("vectors").shape[1])
        self._index.load_index(str(data.path("hnsw.bin")))
        self._index.set_num_threads(1)
        self._index.set_ef(200)

    @classmethod
    def build(cls, data: Data, model: str) -> None:
        import hnswlib

        vectors, path = data.load("vectors"), data.path("hnsw.bin")
        if not path.is_file():
            index = hnswlib.Index(space="ip", dim=vectors.shape[1])
            index.init_index(max_elements=len(vectors), ef_construction=100, M=16, random_seed=0)
            index.add_items(vectors, num_threads=len(os.sched_getaffinity(0)))
            index.save_index(str(path))

    def find(self, query: Any, k: int) -> tuple[Any, Any]:
        rows, distances = self._index.knn_query(query, k)
        return 1 - distances, rows

    def efforts(self) -> list[int]:
        return [100, 200, 400, 800, 1600]  # never below k

    def set_effort(self, effort: int) -> None:
        self._index.set_ef(effort)


class Implicit(_Vectors):
    tolerance = 0.03  # its stored users are our rounded ones
    about = "AlternatingLeastSquares.recommend with our vectors as factors: a stored user, no history is encoded"

    def __init__(self, data: Data, model: str) -> None:
        super().__init__(data, model)
        from implicit.cpu.als import AlternatingLeastSquares

        vectors = data.load("vectors")
        self._model = AlternatingLeastSquares(factors=vectors.shape[1], num_threads=1)
        self._model.item_factors = np.array(vectors)
        self._model.user_factors = np.array(data.load(f"queries-{'base' if model == 'base' else 'fast'}"))

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
