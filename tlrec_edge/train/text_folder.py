"""A text encoder in a folder: a sentence-transformers model as ONNX."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlrec_edge.bundle.session import ORT_ERRORS, load_session
from tlrec_edge.core.strict_json import parse_json
from tlrec_edge.errors import BundleError, MissingExtraError, ModelError
from tlrec_edge.graph.check import CheckedGraph
from tlrec_edge.graph.onnx_file import Constant, GraphError, quoted
from tlrec_edge.types import Floats

MAX_TOKENS = 256
"""Tokens of a text, unless the model's own configuration sets another limit."""
_GRAPHS = ("onnx/model.onnx", "model.onnx")
_TOKENIZER, _CONFIG = "tokenizer.json", "sentence_bert_config.json"
_POOLING = Path("1_Pooling", "config.json")
_INPUTS = {"input_ids", "attention_mask", "token_type_ids"}
_BATCH = 64
_MAX_NODES, _MAX_BYTES = 10_000, 2**31
_LAYOUT_KEYS = {"location", "offset", "length", "checksum"}


class FolderEncoder:
    """A text encoder in a folder. Token vectors are pooled by their mean, or the first is taken.

    Raises ModelError if a file of the folder is missing, damaged or not allowed, MissingExtraError
    if tokenizers is not installed.
    """

    def __init__(self, path: Path) -> None:
        graph = next((path / name for name in _GRAPHS if (path / name).is_file()), None)
        if graph is None or not (path / _TOKENIZER).is_file():
            raise ModelError(
                f"{path} needs an onnx/model.onnx and a {_TOKENIZER}; save the model there with "
                "SentenceTransformer(name, backend='onnx').save_pretrained(folder)"
            )
        self.name, self._path, self._graph = path.resolve().name, path, graph
        self._tokenizer = _read_tokenizer(path)
        self._first_token = _read_option(path / _POOLING, "pooling_mode_cls_token", False)
        self._session = _open_session(graph)
        self._inputs = {value.name for value in self._session.get_inputs()}
        if not self._inputs <= _INPUTS:
            raise ModelError(
                f"{graph} has the inputs {sorted(self._inputs)}, expected some of {sorted(_INPUTS)}"
            )
        self.width = int(self._encode_batch(["x"]).shape[1])

    def encode(self, texts: Sequence[str]) -> Floats:
        """Return a vector per text, (n, width). Raises ModelError if the model fails."""
        parts = [
            self._encode_batch(list(texts[i : i + _BATCH])) for i in range(0, len(texts), _BATCH)
        ]
        return np.concatenate(parts) if parts else np.zeros((0, self.width), np.float32)

    def _encode_batch(self, texts: list[str]) -> Floats:
        try:
            encoded = self._tokenizer.encode_batch(texts)
        except Exception as error:  # tokenizers raises plain exceptions
            raise _failed(self._path / _TOKENIZER, error) from error
        feed = {
            "input_ids": np.array([text.ids for text in encoded], np.int64),
            "attention_mask": np.array([text.attention_mask for text in encoded], np.int64),
            "token_type_ids": np.array([text.type_ids for text in encoded], np.int64),
        }
        inputs = {name: array for name, array in feed.items() if name in self._inputs}
        try:
            tokens = np.asarray(self._session.run(None, inputs)[0])  # (n, length, width)
        except ORT_ERRORS as error:
            raise _failed(self._graph, error) from error
        shape = feed["input_ids"].shape
        if tokens.ndim != 3 or tokens.shape[:2] != shape or not np.isfinite(tokens).all():
            raise ModelError(
                f"{self._graph} returns {tokens.dtype} {tokens.shape}; "
                f"expected finite token vectors {(*shape, 'width')}"
            )
        if self._first_token:
            return np.asarray(tokens[:, 0], np.float32)
        weight = feed["attention_mask"][:, :, None].astype(np.float32)
        return np.asarray((tokens * weight).sum(1) / np.maximum(weight.sum(1), 1.0), np.float32)


def _read_tokenizer(path: Path) -> Any:
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise MissingExtraError(f"text encoder {path}", "text") from error
    limit = _read_option(path / _CONFIG, "max_seq_length", MAX_TOKENS)
    if limit < 1:
        raise ModelError(f"{path / _CONFIG}: max_seq_length = {limit}, expected 1 or more")
    try:
        tokenizer = Tokenizer.from_file(str(path / _TOKENIZER))
        tokenizer.enable_truncation(limit)
        if tokenizer.padding is None:
            tokenizer.enable_padding()
    except Exception as error:  # tokenizers raises plain exceptions
        raise _failed(path / _TOKENIZER, error) from error
    return tokenizer


def _read_option(path: Path, key: str, default: Any) -> Any:
    """Return an entry of a JSON file, which must have the type of ``default``."""
    if not path.is_file():
        return default
    try:
        entries = parse_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise _failed(path, error) from error
    value = entries.get(key) if isinstance(entries, dict) else entries
    if value is not None and type(value) is not type(default):
        raise ModelError(f"{path}: {key} = {value!r:.40}, expected {type(default).__name__}")
    return default if value is None else value


def _open_session(path: Path) -> Any:
    """Return a session of a graph that contains only what is allowed.

    It has one thread, with which a vector has the same bits on every machine that trains.
    """
    try:
        blob = path.read_bytes()
        graph = CheckedGraph(blob, _MAX_NODES, _MAX_BYTES)
        external = {name: _map(path, each) for name, each in graph.external.items()}
        return load_session(blob, str(path), 1, external)
    except (OSError, GraphError) as error:
        raise _failed(path, error) from error
    except BundleError as error:
        raise ModelError(str(error)) from error


def _map(graph: Path, constant: Constant) -> NDArray[Any]:
    """Return a constant that is in another file, which must be in the folder of the graph.

    Raises GraphError if it is not, or if the file does not contain the constant.
    """
    entries = dict(constant.external or {})
    name, place = entries.get("location", ""), f"the constant {quoted(constant.name)}"
    # A plain name on every system. Both files may be links into the same cache of downloads.
    plain = name == PurePosixPath(name).name == PureWindowsPath(name).name
    file = graph.parent / name
    if not plain or not file.is_file() or file.resolve().parent != graph.resolve().parent:
        raise GraphError(f"{place} is in {name!r:.80}, which is not a file of its folder")
    size = constant.dtype.itemsize * math.prod(constant.shape)
    start, length = entries.get("offset", "0"), entries.get("length", str(size))
    numbers = size > 0 and start.isascii() and start.isdigit() and length == str(size)
    if not numbers or set(entries) - _LAYOUT_KEYS or int(start) + size > file.stat().st_size:
        raise GraphError(f"{place} is not in {name!r:.80}, which is too short or altered")
    return np.memmap(file, constant.dtype, "r", int(start), constant.shape)


def _failed(path: Path, error: Exception) -> ModelError:
    reason = next(iter(str(error).splitlines()), type(error).__name__)
    return ModelError(f"{path} cannot be used: {reason:.300}; save the model again")
