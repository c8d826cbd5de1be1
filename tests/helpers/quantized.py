"""Models of the synthetic dataset with their tables stored in every way."""

from __future__ import annotations

from collections.abc import Callable

from helpers import synthetic
from tlrec_edge.quantize import TableBits, quantize_tables, quantize_wide
from tlrec_edge.train import EdgeModel

TABLES: dict[str, Callable[[EdgeModel], EdgeModel]] = {
    "float32": lambda model: model,
    "int8": quantize_tables,
    "int6": lambda model: synthetic.six_bits(quantize_tables(model)),
    "int4": lambda model: quantize_wide(quantize_tables(model, 4)),
    "mixed": lambda model: quantize_wide(
        synthetic.six_bits(quantize_tables(model, TableBits(4, 8, 8, 4)), "candidate")
    ),
    "weights": quantize_wide,
}


def model_of(mode: str, size: str, tables: str) -> EdgeModel:
    return TABLES[tables](synthetic.model(mode, size))
