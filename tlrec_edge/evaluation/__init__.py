"""Evaluation: metrics by slice, comparisons, cross-validation, studies and learning curves."""
