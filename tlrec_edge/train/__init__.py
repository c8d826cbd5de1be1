"""Train: pretrain on the source, adapt to the target, evaluate beside honest baselines."""

from tlrec_edge.train.artifact import EdgeModel
from tlrec_edge.train.auto import adapt_auto
from tlrec_edge.train.evaluate import Evaluation, evaluate
from tlrec_edge.train.transfer import MODES, TrainConfig, adapt, pretrain

__all__ = ["MODES", "EdgeModel", "Evaluation", "TrainConfig", "adapt", "adapt_auto", "evaluate", "pretrain"]
