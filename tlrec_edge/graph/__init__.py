"""ONNX graphs: what a file contains, and whether it is safe and small enough to run."""
