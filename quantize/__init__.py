"""Compression: prune structure, distil, quantize tables row-wise, and keep a step only where it pays."""

from tlrec_edge.quantize.compress import CompressConfig, Compression, Step, compress
from tlrec_edge.quantize.distil import distance, distil, distil_fast
from tlrec_edge.quantize.prune import prune_feed_forward, prune_head_width, prune_heads, prune_history, prune_layers
from tlrec_edge.quantize.tables import quantize_tables
from tlrec_edge.quantize.width import prune_width

__all__ = [
    "CompressConfig",
    "Compression",
    "Step",
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
    "quantize_tables",
]
