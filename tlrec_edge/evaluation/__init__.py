"""Evaluation: metrics by slice, comparisons, cross-validation, studies and learning curves."""

from tlrec_edge.evaluation.evaluate import evaluate
from tlrec_edge.evaluation.result import Evaluation

__all__ = ["Evaluation", "evaluate"]
