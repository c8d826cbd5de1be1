"""Code that every other folder builds on: metrics, quantization, top-k, item features."""
