"""Compression: prune the encoder, store the rest in fewer bits, prove that the ranking stays."""

from .budget import Budget, Target
from .compress import Compression, compress
from .config import CompressConfig
from .distil import distance, distil, distil_fast
from .graphs import quantize_graphs
from .points import Point
from .prune import prune_feed_forward, prune_head_width, prune_heads, prune_history, prune_layers
from .tables import TableBits, quantize_tables, quantize_wide
from .width import prune_width

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
