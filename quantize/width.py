"""Cut the width of the vectors: rotate them to the axes that matter most, keep the first of these, then recover.

History and candidates are cut along axes of their own where the encoder has a linear way out (``fast``), along the same
ones where its residual stream leads from the one to the other (``base``). Vectors are rotated and cut, never shifted,
so that the item tower, whose two heads are rotated with them, still gives a new item the vectors that the tables
would hold. Losing part of the vectors' mean does no harm: among candidates it moves all scores of a user alike; in a
history it is the same for everyone, so that biases absorb it.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from tlrec_edge.data.dataset import Dataset
from tlrec_edge.data.task import Task
from tlrec_edge.errors import ModelError
from tlrec_edge.train.edge_model import EdgeModel
from tlrec_edge.types import Doubles

from .distil import Histories, distil, encode, reshaped

BATCHES = 8
"""Batches of histories whose user vectors tell which axes of the candidates matter."""


def prune_width(
    model: EdgeModel, dataset: Dataset, task: Task, width: int = 32, steps: int = 400, seed: int = 0
) -> EdgeModel:
    """Return the model with vectors of ``width``, recovered by distillation from the model as it was.

    At the full width nothing is lost. Raises ValueError where ``width`` is not in 2..the model's, ModelError where
    the tables are quantized already.
    """
    config = model.net.config
    if not 2 <= width <= config.width:
        raise ValueError(f"width must lie in 2..{config.width}, what the model has, not {width}")
    if model.tables is not None:
        raise ModelError("the tables are quantized already: prune the width first")
    histories = Histories(model, dataset, task, seed)
    cut = {"fast": _cut_fast, "base": _cut_base}[config.size]
    into, out, encoder = cut(model, width, histories)
    shape = replace(
        config, width=width, tower_width=config.hidden_width, head_width=config.attention_width
    )
    net = reshaped(model.net, shape, _cut_items(model, into, out) | encoder)
    return distil(replace(model, net=net), dataset, task, model, steps, seed)


def _cut_items(model: EdgeModel, into: Doubles, out: Doubles) -> dict[str, Tensor]:
    state = model.net.state_dict()
    changed = {}
    for side, axes in (("history", into), ("candidate", out)):
        changed[f"{side}_id.weight"] = _single(_double(state[f"{side}_id.weight"]) @ axes)
        if f"tower.{side}.weight" in state:
            changed[f"tower.{side}.weight"] = _single(
                axes.T @ _double(state[f"tower.{side}.weight"])
            )
    return changed


def _cut_fast(
    model: EdgeModel, width: int, histories: Histories
) -> tuple[Doubles, Doubles, dict[str, Tensor]]:
    """Return the axes of history and candidates, (d, width), and an encoder between them.

    Attention pooling and what reads it are linear in the history vectors, and what gives the user vector is linear, so
    that both rotations fold into the weights.
    """
    d, queries = model.net.config.width, model.net.config.queries
    mean, covariance = _history_moments(model, histories)
    into = _largest(covariance, width)
    lost = mean - into @ (into.T @ mean)  # the part of every pooled vector that the axes leave out
    out, read = _score_axes(model, width, histories)
    state = {name: _double(value) for name, value in model.net.encoder.state_dict().items()}
    skip, up = (
        state[f"{part}.weight"].reshape(-1, queries, d) for part in ("skip", "feed_forward.up")
    )
    shift = (skip @ lost).sum(1)
    return (
        into,
        out,
        {
            f"encoder.{name}": _single(value)
            for name, value in {
                "query": into.T @ state["query"],
                "skip.weight": read @ (skip @ into).reshape(d, -1),
                "feed_forward.up.weight": (up @ into).reshape(len(up), -1),
                "feed_forward.up.bias": state["feed_forward.up.bias"] + (up @ lost).sum(1),
                "feed_forward.down.weight": read @ state["feed_forward.down.weight"],
                "feed_forward.down.bias": read @ (state["feed_forward.down.bias"] + shift),
            }.items()
        },
    )


def _cut_base(
    model: EdgeModel, width: int, histories: Histories
) -> tuple[Doubles, Doubles, dict[str, Tensor]]:
    """Return the same axes (d, width) twice, and the encoder with its residual stream along them.

    Layer norm commutes with a rotation that keeps the direction (1, ..., 1), so that one is always among the axes (as
    SliceGPT, arXiv 2401.15024, does for RMS norm).
    """
    d = model.net.config.width
    covariances = (_history_moments(model, histories)[1], _candidate_covariance(model))
    covariance = sum((part / max(np.trace(part), 1e-12) for part in covariances), np.zeros((d, d)))
    ones, rest = _around_ones(d)[:, :1], _around_ones(d)[:, 1:]
    retained = np.concatenate(
        [ones, rest @ _largest(rest.T @ covariance @ rest, width - 1)], 1
    )  # (d, width)
    axes = retained @ _around_ones(width).T
    state = {name: _double(value) for name, value in model.net.encoder.state_dict().items()}
    changed = {"position": state["position"] @ axes}
    for i in range(model.net.config.layers):
        layer = f"layers.{i}."
        for norm, readers in (("norm", ("q", "k", "v")), ("norm_ff", ("feed_forward.up",))):
            gain, bias = state[f"{layer}{norm}.weight"], state[f"{layer}{norm}.bias"]
            changed[f"{layer}{norm}.weight"] = np.full(width, (d / width) ** 0.5)
            changed[f"{layer}{norm}.bias"] = np.zeros(width)
            for name in readers:
                weight = state[f"{layer}{name}.weight"]
                changed[f"{layer}{name}.weight"] = (weight * gain) @ axes
                if name != "k":  # what is added to every key moves no attention
                    changed[f"{layer}{name}.bias"] = state[f"{layer}{name}.bias"] + weight @ bias
        for name in ("out", "feed_forward.down"):
            for part in ("weight", "bias"):
                changed[f"{layer}{name}.{part}"] = axes.T @ state[f"{layer}{name}.{part}"]
    return axes, axes, {f"encoder.{name}": _single(value) for name, value in changed.items()}


def _history_moments(model: EdgeModel, histories: Histories) -> tuple[Doubles, Doubles]:
    """Return mean (d,) and covariance (d, d) of history vectors, an item weighing as often as it occurs."""
    past = histories.user_histories
    count = np.bincount(past.rows[past.log.item], minlength=len(model.ids)).astype(np.float64)
    share = count / count.sum()
    centred = model.history_vectors.astype(np.float64)
    mean = share @ centred
    centred -= mean
    centred *= np.sqrt(share)[:, None]
    return mean, centred.T @ centred


def _candidate_covariance(model: EdgeModel) -> Doubles:
    """Return the covariance of the candidates' vectors, (d, d)."""
    centred = model.candidate_vectors.astype(np.float64)
    centred -= centred.mean(0)
    return centred.T @ centred / len(centred)


def _score_axes(model: EdgeModel, width: int, histories: Histories) -> tuple[Doubles, Doubles]:
    """Return the axes (d, width) of the candidates that lose least of the users' scores, and what maps users to them.

    With S the second moment of user vectors and G the covariance of candidates, scores of low rank are best where
    candidates lie along S^1/2 times the first eigenvectors of S^1/2 G S^1/2 (Eckart and Young, 1936); users follow by
    least squares, (width, d).
    """
    d = model.net.config.width
    with torch.no_grad():
        users = torch.cat(
            [encode(model, histories.draw(model.net.config.history)) for _ in range(BATCHES)]
        )
    drawn = _double(users)
    gram = _candidate_covariance(model)
    value, vector = np.linalg.eigh(drawn.T @ drawn / len(drawn))
    # Floored, so that axes no sampled user has are rotated too.
    root = (vector * np.sqrt(np.maximum(value, 1e-6 * value[-1]))) @ vector.T
    axes = np.linalg.qr(root @ _largest(root @ gram @ root, width))[0]
    least = gram + np.eye(d) * max(1e-9 * np.trace(gram) / d, 1e-12)
    return axes, np.linalg.solve(axes.T @ least @ axes, axes.T @ least)


def _largest(covariance: Doubles, count: int) -> Doubles:
    """Return the eigenvectors of the largest eigenvalues, (d, count), their largest entry above 0."""
    vectors = np.linalg.eigh(covariance)[1][:, ::-1][:, :count]
    sign = np.sign(np.take_along_axis(vectors, np.abs(vectors).argmax(0)[None], 0))
    return np.ascontiguousarray(vectors * sign)


def _around_ones(width: int) -> Doubles:
    """Return an orthogonal matrix (width, width) whose first column is (1, ..., 1) / sqrt(width)."""
    basis = np.linalg.qr(np.column_stack([np.ones(width), np.eye(width)[:, 1:]]))[0]
    return np.ascontiguousarray(basis * np.sign(basis[0, 0]))


def _double(value: Tensor) -> Doubles:
    return value.numpy().astype(np.float64)


def _single(value: Doubles) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(value, np.float32))
