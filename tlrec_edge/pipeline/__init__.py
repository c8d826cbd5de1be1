"""The way from tables to a bundle in Python: a function for each command, on the same code.

    from tlrec_edge import Recommender, pipeline

    data = pipeline.Dataset.from_frames(interactions, items)
    source = pipeline.pretrain(data, "uk")
    model = pipeline.adapt(data, "de", source=source)
    print(pipeline.evaluate(model, data).to_json()["lift"])
    pipeline.export(model, data, "bundle")
    Recommender.open("bundle").recommend(["de-tea-3"])

Needs the extra ``[build]``.
"""

from tlrec_edge.data.dataset import Dataset, DataWarning
from tlrec_edge.data.prepare import SplitPlan
from tlrec_edge.data.store import load_dataset, save_dataset
from tlrec_edge.pipeline.steps import adapt, compress, evaluate, export, pretrain
from tlrec_edge.quantize.config import CompressConfig
from tlrec_edge.tabular.schema import Schema, load_schema
from tlrec_edge.train.config import TrainConfig
from tlrec_edge.train.edge_model import EdgeModel

__all__ = [
    "CompressConfig",
    "DataWarning",
    "Dataset",
    "EdgeModel",
    "Schema",
    "SplitPlan",
    "TrainConfig",
    "adapt",
    "compress",
    "evaluate",
    "export",
    "load_dataset",
    "load_schema",
    "pretrain",
    "save_dataset",
]
