"""The values that options, configs and data columns choose from.

`--help` shows them. The modules that implement them import torch, pandas or onnx, which would make
`--help` slow, so the names are listed here.
"""

from __future__ import annotations

EVENTS = ("view", "click", "cart", "purchase", "other")
"""Kinds of interaction; datasets and bundles store positions in this tuple."""
EVENT_WEIGHTS = (0.2, 0.4, 0.7, 1.0, 0.5)
"""Default weight of each of ``EVENTS``."""
PRESETS = ("complete-journey", "online-retail")
"""Public datasets whose columns are known."""
SPLITS = ("leave-one-out", "last-basket", "time", "new-users", "given")
"""Ways to hold out test rows."""

ENCODER_SIZES = ("fast", "base")
"""History encoders."""
AUTO = "auto"
"""The mode that tries the others and chooses one on validation rows."""
MODES = ("scratch", "zero-shot", "frozen", "finetune", "joint")
"""Ways to transfer a source model to a target."""
ALIGNMENTS = ("none", "adversarial", "coral")
"""Ways to align the content vectors of source and target items."""
AUGMENTATIONS = ("crop", "mask", "reorder", "token-dropout")
"""Ways to augment training histories."""
ABLATIONS = ("deep", "wide", "counts", "repeat", "content", "ids")
"""Parts of a model that can be left out."""

MACHINES = ("this", "avx2", "avx512-vnni", "arm64")
"""Machines that `compress` can optimise for."""
GATES = ("parity", "batch", "order", "unknown", "graph", "quality", "speed", "transfer")
"""Checks that a bundle must pass to be exported, in their order."""
