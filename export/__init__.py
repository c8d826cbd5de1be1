"""Export: from a torch model to a bundle that passed its gates."""

from .export import ExportConfig, export_bundle
from .graphs import IR_VERSION, OPSET, encoder_graph, item_tower_graph
from .parity import Parity

__all__ = [
    "IR_VERSION",
    "OPSET",
    "ExportConfig",
    "Parity",
    "encoder_graph",
    "export_bundle",
    "item_tower_graph",
]
