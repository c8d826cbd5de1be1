"""Linear models: EASE, item-item weights, low-rank parts, and simple baselines."""
