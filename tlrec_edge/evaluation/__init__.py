"""Evaluation: metrics by slice, comparisons, cross-validation, studies and learning curves."""

from tlrec_edge.evaluation.evaluate import Evaluation, evaluate

__all__ = ["Evaluation", "evaluate"]
