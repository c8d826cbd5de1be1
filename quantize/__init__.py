"""Compression: cut the structure, store the rest in fewer bits, and keep what is proven to rank as before."""

from tlrec_edge.quantize.budget import Budget, Target
from tlrec_edge.quantize.compress import CompressConfig, Compression, Point, compress
from tlrec_edge.quantize.distil import distance, distil, distil_fast
from tlrec_edge.quantize.graphs import quantize_graphs
from tlrec_edge.quantize.prune import prune_feed_forward, prune_head_width, prune_heads, prune_history, prune_layers
from tlrec_edge.quantize.tables import TableBits, quantize_tables, quantize_wide
from tlrec_edge.quantize.width import prune_width

__all__ = [
    "Budget",
    "CompressConfig",
    "Compression",
    "Point",
    "TableBits",
    "Target",
    "compress",
    "distance",
    "distil",
    "distil_fast",
    "prune_feed_forward",
    "prune_head_width",
    "prune_heads",
    "prune_history",
    "prune_layers",
    "prune_width",
    "quantize_graphs",
    "quantize_tables",
    "quantize_wide",
]
