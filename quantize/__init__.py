"""Compression: prune structure, quantize tables row-wise, and keep a step only where it pays."""

from tlrec_edge.quantize.compress import CompressConfig, Compression, Step, compress
from tlrec_edge.quantize.prune import prune_feed_forward
from tlrec_edge.quantize.tables import TableBits, quantize_tables, quantize_wide

__all__ = [
    "CompressConfig",
    "Compression",
    "Step",
    "TableBits",
    "compress",
    "prune_feed_forward",
    "quantize_tables",
    "quantize_wide",
]
