"""How a bundle is measured."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

DEFAULT_CANDIDATES = (1, 32, 100, 1000)


@dataclass(frozen=True)
class BenchConfig:
    """A row ends after ``seconds`` and ``min_queries``, whichever is later, but after ``5 * seconds`` at the latest.

    ``pool`` is how many different requests there are; the cache of user states holds half of them, so that going round
    the pool never finds a state in it.
    """

    candidates: tuple[int, ...] = DEFAULT_CANDIDATES
    k: int = 10
    seconds: float = 2.0
    min_queries: int = 1000
    warmup: float = 0.2
    pool: int = 512
    zipf: float = 1.0
    starts: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.candidates or min(self.candidates) < 1:
            raise ValueError(f"candidates = {self.candidates}: give at least one count, each at least 1")
        for name in ("k", "min_queries", "starts"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}: expected at least 1")
        if not 0 < self.seconds < float("inf") or not 0 <= self.warmup < float("inf"):
            raise ValueError(f"seconds = {self.seconds}, warmup = {self.warmup}: expected more than 0 and at least 0")
        if self.pool < 2 or self.zipf < 0 or self.seed < 0:
            raise ValueError(f"pool = {self.pool}, zipf = {self.zipf}, seed = {self.seed}: expected 2, 0, 0 or more")

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"candidates": list(self.candidates)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> BenchConfig:
        return cls(**(data | {"candidates": tuple(data["candidates"])}))
