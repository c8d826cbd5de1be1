"""Pretrained text encoders, for training and for adding items later.

A server needs none: bundles hold the text vectors of their items.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from tlrec_edge.errors import MissingExtraError, ModelError
from tlrec_edge.train.text_folder import FolderEncoder
from tlrec_edge.types import Floats

HASHED = "hashed"
"""The default: hashed n-grams, fitted on the items, which the runtime computes by itself."""


class TextEncoder(Protocol):
    """Maps texts to vectors."""

    @property
    def name(self) -> str:
        """The name that models and bundles record."""

    @property
    def width(self) -> int:
        """The width of the vectors."""

    def encode(self, texts: Sequence[str]) -> Floats:
        """Return a vector per text, (n, width), of any norm; 0 for a text without a known word."""


class _WordLlama:
    """The mean of token vectors distilled from a language model; its weights are in the package."""

    name = "wordllama"

    def __init__(self) -> None:
        try:
            import wordllama
        except ImportError as error:
            raise MissingExtraError("text encoder wordllama", "text") from error
        folder = Path(wordllama.__file__).parent
        self._model = wordllama.WordLlama.load(cache_dir=folder, disable_download=True)
        self.width = int(self._model.embedding.shape[1])

    def encode(self, texts: Sequence[str]) -> Floats:
        if not texts:
            return np.zeros((0, self.width), np.float32)
        return np.asarray(self._model.embed(list(texts)), np.float32)


ENCODERS: dict[str, Callable[[], TextEncoder]] = {"wordllama": _WordLlama}


def open_encoder(name: str) -> TextEncoder:
    """Load a text encoder, without network access.

    ``name`` is a key of ENCODERS, or a folder with a sentence-transformers model as ONNX. Raises
    MissingExtraError if its package is not installed, ModelError if it is neither, or if the
    folder's files are damaged or contain what is not allowed.
    """
    if name in ENCODERS:
        return ENCODERS[name]()
    if Path(name).is_dir():
        return FolderEncoder(Path(name))
    raise ModelError(
        f"{name!r} is not a text encoder: use {HASHED}, {', '.join(ENCODERS)} "
        "or a folder that holds one"
    )
