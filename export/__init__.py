"""Export: torch to ONNX, the parity gate, and the bundle with its cards."""

from tlrec_edge.export.bundle import ExportConfig, Parity, export_bundle
from tlrec_edge.export.graphs import IR_VERSION, OPSET, encoder_graph, item_tower_graph

__all__ = [
    "IR_VERSION",
    "OPSET",
    "ExportConfig",
    "Parity",
    "encoder_graph",
    "export_bundle",
    "item_tower_graph",
]
