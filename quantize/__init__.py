"""Compression: cut the structure, store the rest in fewer bits, and keep what is proven to rank as before."""

from tlrec_edge.quantize.budget import Budget, Target
from tlrec_edge.quantize.compress import CompressConfig, Compression, Cost, Point, compress
from tlrec_edge.quantize.graphs import quantize_graphs
from tlrec_edge.quantize.prune import prune_feed_forward
from tlrec_edge.quantize.tables import quantize_tables

__all__ = [
    "Budget",
    "CompressConfig",
    "Compression",
    "Cost",
    "Point",
    "Target",
    "compress",
    "prune_feed_forward",
    "quantize_graphs",
    "quantize_tables",
]
