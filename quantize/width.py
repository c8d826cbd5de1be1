"""Prune the width of the vectors: rotate them to their principal axes, keep the first ones, distil.

A rotation is merged into the weights on both sides, so it costs nothing at serving time. The
``fast`` encoder is linear from the history vectors to its output, so histories and candidates each
have their own axes. In ``base`` a residual stream connects the two, so both have the same axes.

Vectors are rotated and truncated, but not centred. So the item tower, whose two outputs are rotated
with the tables, still gives a new item the vectors that the tables would hold. Truncation also
drops a part of the mean, which does no harm: among candidates it shifts all scores of a user
equally; in histories it is the same for every user, so biases absorb it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from tlrec_edge.data.dataset import Dataset
from tlrec_edge.data.task import Task
from tlrec_edge.errors import ModelError
from tlrec_edge.train.edge_model import EdgeModel
from tlrec_edge.types import Doubles

from .distil import Histories, distil, encode, reshaped

SCORE_BATCHES = 8
"""Batches of histories whose user vectors decide which axes of the candidates matter."""


class _Rotation(NamedTuple):
    """Axes (d, width) of history and candidate vectors, and the encoder's weights between them."""

    history: Doubles
    candidate: Doubles
    encoder: dict[str, Tensor]


def prune_width(
    model: EdgeModel, dataset: Dataset, task: Task, width: int = 32, steps: int = 400, seed: int = 0
) -> EdgeModel:
    """Return the model with vectors of ``width``, recovered by distillation from the model.

    At the model's width the rotation is lossless. Raises ValueError if ``width`` is not in 2..the
    model's, ModelError if the tables are quantized.
    """
    config = model.net.config
    if not 2 <= width <= config.width:
        raise ValueError(f"width must lie in 2..{config.width} (the model's), not {width}")
    if model.tables is not None:
        raise ModelError("the tables are quantized already: prune the width first")
    histories = Histories(model, dataset, task, seed)
    rotate = {"fast": _rotate_fast, "base": _rotate_base}[config.size]
    rotation = rotate(model, width, histories)
    # Only the vectors shrink: tower and attention heads keep the widths they had by default.
    shape = replace(
        config, width=width, tower_width=config.hidden_width, head_width=config.attention_width
    )
    net = reshaped(model.net, shape, _rotate_items(model, rotation) | rotation.encoder)
    return distil(replace(model, net=net), dataset, task, model, steps, seed)


def _rotate_items(model: EdgeModel, rotation: _Rotation) -> dict[str, Tensor]:
    """Return id embeddings and tower outputs along the new axes."""
    state = model.net.state_dict()
    rotated = {}
    for side, axes in (("history", rotation.history), ("candidate", rotation.candidate)):
        embedding, output = f"{side}_id.weight", f"tower.{side}.weight"
        rotated[embedding] = _to_tensor(_to_doubles(state[embedding]) @ axes)
        if output in state:
            rotated[output] = _to_tensor(axes.T @ _to_doubles(state[output]))
    return rotated


def _rotate_fast(model: EdgeModel, width: int, histories: Histories) -> _Rotation:
    """Rotate a ``fast`` model, histories and candidates each to their own axes.

    Attention pooling and its readers are linear in the history vectors, and the last layers are
    linear in the user vector, so that both rotations fold into the weights.
    """
    d, queries = model.net.config.width, model.net.config.queries
    mean, covariance = _history_moments(model, histories)
    axes = _main_axes(covariance, width)
    # Attention weights sum to 1, so every pooled vector loses the same part of the mean.
    lost_mean = mean - axes @ (axes.T @ mean)
    candidate_axes, user_map = _score_axes(model, width, histories)
    state = _encoder_doubles(model)
    skip = state["skip.weight"].reshape(-1, queries, d)
    up = state["feed_forward.up.weight"].reshape(-1, queries, d)
    lost_skip, lost_up = (skip @ lost_mean).sum(1), (up @ lost_mean).sum(1)
    encoder = {
        "query": axes.T @ state["query"],
        "skip.weight": user_map @ (skip @ axes).reshape(d, -1),
        "feed_forward.up.weight": (up @ axes).reshape(len(up), -1),
        "feed_forward.up.bias": state["feed_forward.up.bias"] + lost_up,
        "feed_forward.down.weight": user_map @ state["feed_forward.down.weight"],
        "feed_forward.down.bias": user_map @ (state["feed_forward.down.bias"] + lost_skip),
    }
    return _Rotation(axes, candidate_axes, _encoder_tensors(encoder))


def _rotate_base(model: EdgeModel, width: int, histories: Histories) -> _Rotation:
    """Rotate a ``base`` model, its residual stream included, to one set of axes.

    Layer norm subtracts the mean over a vector's entries, that is its part along (1, ..., 1). A
    rotation that maps the all-ones direction to that of the new width commutes with it, so that
    direction is always among the axes (SliceGPT, arXiv 2401.15024, rotates RMS norm, which needs
    no such care).
    """
    d = model.net.config.width
    axes = _axes_with_ones(_shared_covariance(model, histories), width)
    state = _encoder_doubles(model)
    encoder = {"position": state["position"] @ axes}
    for i in range(model.net.config.layers):
        layer = f"layers.{i}."
        for norm, readers in (("norm", ("q", "k", "v")), ("norm_ff", ("feed_forward.up",))):
            # A gain per entry does not commute with a rotation: the readers' weights take it over.
            gain, bias = state[f"{layer}{norm}.weight"], state[f"{layer}{norm}.bias"]
            # Layer norm divides by the root mean square; of fewer entries that is larger.
            encoder[f"{layer}{norm}.weight"] = np.full(width, (d / width) ** 0.5)
            encoder[f"{layer}{norm}.bias"] = np.zeros(width)
            for reader in readers:
                name = f"{layer}{reader}"
                weight = state[f"{name}.weight"]
                encoder[f"{name}.weight"] = (weight * gain) @ axes
                if reader != "k":  # softmax ignores a constant that is added to every key
                    encoder[f"{name}.bias"] = state[f"{name}.bias"] + weight @ bias
        for writer in ("out", "feed_forward.down"):
            for part in ("weight", "bias"):
                name = f"{layer}{writer}.{part}"
                encoder[name] = axes.T @ state[name]
    return _Rotation(axes, axes, _encoder_tensors(encoder))


def _axes_with_ones(covariance: Doubles, width: int) -> Doubles:
    """Return axes (d, width) that map the all-ones vector to a multiple of the shorter one.

    The other axes are the principal ones of the space orthogonal to it.
    """
    basis = _basis_with_ones(len(covariance))
    ones, others = basis[:, :1], basis[:, 1:]
    main = _main_axes(others.T @ covariance @ others, width - 1)
    axes = np.concatenate([ones, others @ main], 1)  # (d, width), all-ones direction first
    return axes @ _basis_with_ones(width).T


def _shared_covariance(model: EdgeModel, histories: Histories) -> Doubles:
    """Return the sum (d, d) of the two tables' covariances, each scaled to trace 1."""
    total = np.zeros((model.net.config.width,) * 2)
    for covariance in (_history_moments(model, histories)[1], _candidate_covariance(model)):
        total = total + covariance / max(np.trace(covariance), 1e-12)
    return total


def _history_moments(model: EdgeModel, histories: Histories) -> tuple[Doubles, Doubles]:
    """Return mean (d,) and covariance (d, d) of history vectors, weighted by item frequency."""
    past = histories.user_histories
    count = np.bincount(past.rows[past.log.item], minlength=len(model.ids)).astype(np.float64)
    frequency = count / count.sum()
    centred = model.history_vectors.astype(np.float64)
    mean = frequency @ centred
    centred -= mean
    centred *= np.sqrt(frequency)[:, None]
    return mean, centred.T @ centred


def _candidate_covariance(model: EdgeModel) -> Doubles:
    """Return the covariance of the candidates' vectors, (d, d)."""
    centred = model.candidate_vectors.astype(np.float64)
    centred -= centred.mean(0)
    return centred.T @ centred / len(centred)


def _score_axes(model: EdgeModel, width: int, histories: Histories) -> tuple[Doubles, Doubles]:
    """Return the candidate axes (d, width) that keep most of the scores, and the users' (width, d).

    The axes keep the variance of the scores, not that of the candidates: an axis along which user
    vectors are short matters little. Let S be the second moment of the user vectors, C the centred
    candidates and G their covariance. The error of the scores is the Frobenius norm of the part of
    S^1/2 C^T that is lost. By Eckart and Young (1936), the best approximation of rank ``width``
    projects onto the first eigenvectors V of S^1/2 G S^1/2, so the axes span S^1/2 V. The users'
    coordinates are then the least-squares fit to their scores.
    """
    d = model.net.config.width
    length = model.net.config.history
    with torch.no_grad():
        batches = [encode(model, histories.draw(length)) for _ in range(SCORE_BATCHES)]
    users = _to_doubles(torch.cat(batches))  # (u, d)
    gram = _candidate_covariance(model)
    value, vector = np.linalg.eigh(users.T @ users / len(users))
    # The floor keeps the root invertible: axes without variance in the sample are rotated too.
    root = (vector * np.sqrt(np.maximum(value, 1e-6 * value[-1]))) @ vector.T
    axes = np.linalg.qr(root @ _main_axes(root @ gram @ root, width))[0]
    regularised = gram + np.eye(d) * max(1e-9 * np.trace(gram) / d, 1e-12)
    return axes, np.linalg.solve(axes.T @ regularised @ axes, axes.T @ regularised)


def _main_axes(covariance: Doubles, count: int) -> Doubles:
    """Return the eigenvectors of the largest eigenvalues, (d, count).

    The largest entry of each is positive, so that the result does not depend on the LAPACK in use.
    """
    vectors = np.linalg.eigh(covariance)[1][:, ::-1][:, :count]
    sign = np.sign(np.take_along_axis(vectors, np.abs(vectors).argmax(0)[None], 0))
    return np.ascontiguousarray(vectors * sign)


def _basis_with_ones(width: int) -> Doubles:
    """Return an orthogonal matrix (width, width) whose first column has equal entries."""
    basis = np.linalg.qr(np.column_stack([np.ones(width), np.eye(width)[:, 1:]]))[0]
    return np.ascontiguousarray(basis * np.sign(basis[0, 0]))


def _encoder_doubles(model: EdgeModel) -> dict[str, Doubles]:
    return {name: _to_doubles(value) for name, value in model.net.encoder.state_dict().items()}


def _encoder_tensors(weights: dict[str, Doubles]) -> dict[str, Tensor]:
    return {f"encoder.{name}": _to_tensor(value) for name, value in weights.items()}


def _to_doubles(value: Tensor) -> Doubles:
    return value.numpy().astype(np.float64)


def _to_tensor(value: Doubles) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(value, np.float32))
