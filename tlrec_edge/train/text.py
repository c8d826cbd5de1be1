"""Pretrained text encoders, for training and for adding items later.

A server needs none: bundles hold the text vectors of their items.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from tlrec_edge.core.strict_json import parse_json
from tlrec_edge.errors import MissingExtraError, ModelError
from tlrec_edge.types import Floats

HASHED = "hashed"
"""The default: hashed n-grams, fitted on the items, which the runtime computes by itself."""
_BATCH = 64
_POOLING = Path("1_Pooling", "config.json")
_MAX_TOKENS = 256
"""Tokens of a text, unless the model's own configuration sets another limit."""


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


class _OnnxEncoder:
    """A sentence-transformers model in a folder, as ONNX.

    Token vectors are pooled by their mean, or the first is taken, as the folder configures.
    """

    def __init__(self, path: Path) -> None:
        graphs = [path / name for name in ("onnx/model.onnx", "model.onnx")]
        graph = next((graph for graph in graphs if graph.is_file()), None)
        if graph is None or not (path / "tokenizer.json").is_file():
            raise ModelError(
                f"{path} needs an onnx/model.onnx and a tokenizer.json; save the model there with "
                "SentenceTransformer(name, backend='onnx').save_pretrained(folder)"
            )
        try:
            from tokenizers import Tokenizer
        except ImportError as error:
            raise MissingExtraError(f"text encoder {path}", "text") from error
        import onnxruntime

        self.name = path.resolve().name
        self._tokenizer = Tokenizer.from_file(str(path / "tokenizer.json"))
        self._tokenizer.enable_truncation(
            _read_option(path / "sentence_bert_config.json", "max_seq_length", _MAX_TOKENS)
        )
        if self._tokenizer.padding is None:
            self._tokenizer.enable_padding()
        self._first_token = bool(_read_option(path / _POOLING, "pooling_mode_cls_token", False))
        options = onnxruntime.SessionOptions()
        # With one thread a vector has the same bits on every machine that trains.
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(str(graph), options, ["CPUExecutionProvider"])
        self._inputs = {value.name for value in self._session.get_inputs()}
        self.width = int(self._encode_batch(["x"]).shape[1])

    def encode(self, texts: Sequence[str]) -> Floats:
        parts = [
            self._encode_batch(list(texts[i : i + _BATCH])) for i in range(0, len(texts), _BATCH)
        ]
        return np.concatenate(parts) if parts else np.zeros((0, self.width), np.float32)

    def _encode_batch(self, texts: list[str]) -> Floats:
        encoded = self._tokenizer.encode_batch(texts)
        feed = {
            "input_ids": np.array([text.ids for text in encoded], np.int64),
            "attention_mask": np.array([text.attention_mask for text in encoded], np.int64),
            "token_type_ids": np.array([text.type_ids for text in encoded], np.int64),
        }
        inputs = {name: array for name, array in feed.items() if name in self._inputs}
        tokens = self._session.run(None, inputs)[0]  # (n, length, width)
        weight = feed["attention_mask"][:, :, None].astype(np.float32)
        if self._first_token:
            return np.asarray(tokens[:, 0], np.float32)
        return np.asarray((tokens * weight).sum(1) / np.maximum(weight.sum(1), 1.0), np.float32)


def _read_option(path: Path, key: str, default: Any) -> Any:
    return parse_json(path.read_bytes()).get(key, default) if path.is_file() else default


ENCODERS: dict[str, Callable[[], TextEncoder]] = {"wordllama": _WordLlama}


def open_encoder(name: str) -> TextEncoder:
    """Load a text encoder, without network access.

    ``name`` is a key of ENCODERS, or a folder with a sentence-transformers model as ONNX. Raises
    MissingExtraError if its package is not installed, ModelError if it is neither.
    """
    if name in ENCODERS:
        return ENCODERS[name]()
    if Path(name).is_dir():
        return _OnnxEncoder(Path(name))
    raise ModelError(
        f"{name!r} is not a text encoder: use {HASHED}, {', '.join(ENCODERS)} "
        "or a folder that holds one"
    )
