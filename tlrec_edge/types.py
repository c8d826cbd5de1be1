"""Names for the array types in signatures, by dtype; the docstrings give the shapes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Ints = NDArray[np.int32]
Longs = NDArray[np.int64]
Bools = NDArray[np.bool_]
Bytes = NDArray[np.uint8]
Indices = NDArray[np.intp]
"""Indices into the candidates of a catalogue, or into another array."""
Scores = NDArray[np.floating[Any]]
"""Scores in single or double precision."""
Scales = NDArray[np.floating[Any]]
"""Scales of quantized rows: float16 or float32."""
