"""The contenders: one class each, imported only when it is used."""

from __future__ import annotations

import importlib

from ..contender import Contender
from ..data import Data

CONTENDERS = {
    "tlrec-edge": "ours:Ours",
    "tlrec-edge-wide": "ours:Ours",
    "before": "before:Before",
    "before-wide": "before:Before",
    "onnxruntime": "graphs:OnnxRuntime",
    "openvino": "graphs:OpenVino",
    "replay": "sasrec:Replay",
    "recbole": "sasrec:RecBole",
    "rechub": "rechub:Dssm",
    "implicit": "vectors:Implicit",
    "faiss-flat": "vectors:FaissFlat",
    "faiss-sq8": "vectors:FaissSq8",
    "faiss-ivf": "vectors:FaissIvf",
    "faiss-ivf-rerank": "vectors:FaissIvfRerank",
    "hnswlib": "vectors:Hnsw",
}
"""Module and class by name."""


def kind(name: str) -> type[Contender]:
    """Return the class of a contender. Raises ImportError if its package is not installed."""
    module, _, attribute = CONTENDERS[name].partition(":")
    cls: type[Contender] = getattr(importlib.import_module(f".{module}", __package__), attribute)
    if cls.package is not None:
        importlib.import_module(cls.package)
    return cls


def make(name: str, data: Data, model: str) -> Contender:
    """Load a contender. Raises whatever keeps it from running."""
    return kind(name)(data, model)
