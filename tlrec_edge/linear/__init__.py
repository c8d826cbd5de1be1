"""Linear models: EASE, item-item weights, low-rank parts, and the baselines of an evaluation."""
