"""Pieces without a subject of their own: metrics, quantized rows, packing, sparse rows, top-k, features."""
