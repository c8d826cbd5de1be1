"""Exact and approximate maximum inner product search over a bundle's candidates."""
