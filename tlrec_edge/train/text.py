"""Pretrained text encoders: they give training its text vectors, and whoever adds items later; a server has none."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from tlrec_edge.errors import MissingExtraError, ModelError
from tlrec_edge.types import Floats

HASHED = "hashed"
"""The default: hashed n-grams, fitted on the items, which the runtime makes by itself."""
_BATCH = 64


class TextEncoder(Protocol):
    """``encode`` turns n texts into vectors (n, ``width``) of any length; zeros for a text without a known word."""

    @property
    def name(self) -> str: ...
    @property
    def width(self) -> int: ...
    def encode(self, texts: Sequence[str]) -> Floats: ...


class _WordLlama:
    """Mean of token vectors distilled from a language model's; the weights lie in the package."""

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
    """A sentence-transformers model that lies in a folder as ONNX: token vectors pooled by mean or by the first."""

    def __init__(self, path: Path) -> None:
        graph = next(
            (path / name for name in ("onnx/model.onnx", "model.onnx") if (path / name).is_file()),
            None,
        )
        if graph is None or not (path / "tokenizer.json").is_file():
            raise ModelError(
                f"{path} holds no onnx/model.onnx beside a tokenizer.json; save the model there with "
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
            _read_option(path / "sentence_bert_config.json", "max_seq_length", 256)
        )
        if self._tokenizer.padding is None:
            self._tokenizer.enable_padding()
        self._first = bool(
            _read_option(path / "1_Pooling" / "config.json", "pooling_mode_cls_token", False)
        )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = (
            1  # so that a vector is the same on every machine that trains
        )
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
            "input_ids": np.array([one.ids for one in encoded], np.int64),
            "attention_mask": np.array([one.attention_mask for one in encoded], np.int64),
            "token_type_ids": np.array([one.type_ids for one in encoded], np.int64),
        }
        tokens = self._session.run(
            None, {name: feed[name] for name in feed if name in self._inputs}
        )[0]  # (n, l, w)
        weight = feed["attention_mask"][:, :, None].astype(np.float32)
        if self._first:
            return np.asarray(tokens[:, 0], np.float32)
        return np.asarray((tokens * weight).sum(1) / np.maximum(weight.sum(1), 1.0), np.float32)


def _read_option(path: Path, key: str, default: Any) -> Any:
    return json.loads(path.read_text("utf-8")).get(key, default) if path.is_file() else default


ENCODERS: dict[str, Callable[[], TextEncoder]] = {"wordllama": _WordLlama}


def open_encoder(name: str) -> TextEncoder:
    """Load a text encoder: one of ENCODERS, or a folder with a sentence-transformers model as ONNX; offline.

    Raises MissingExtraError where its package is not installed, ModelError where there is no such encoder.
    """
    if name in ENCODERS:
        return ENCODERS[name]()
    if Path(name).is_dir():
        return _OnnxEncoder(Path(name))
    raise ModelError(
        f"no text encoder {name!r}; expected {HASHED}, {', '.join(ENCODERS)} or a folder that holds one"
    )
