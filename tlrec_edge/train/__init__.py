"""Pretrain on the source domains, adapt to a target."""

from tlrec_edge.train.adapt import adapt
from tlrec_edge.train.auto import adapt_auto
from tlrec_edge.train.config import TrainConfig
from tlrec_edge.train.edge_model import EdgeModel
from tlrec_edge.train.modes import MODES
from tlrec_edge.train.pretrain import pretrain

__all__ = ["MODES", "EdgeModel", "TrainConfig", "adapt", "adapt_auto", "pretrain"]
