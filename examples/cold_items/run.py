"""Rank items of Online Retail that nobody has bought yet, by their titles.

python examples/cold_items/run.py online_retail.csv --text hashed --text wordllama
"""

from __future__ import annotations

import argparse
import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from tlrec_edge import Recommender
from tlrec_edge.core.metrics import METRICS, clustered_mean, paired_lift, rank_of_positive
from tlrec_edge.data.dataset import TEST, VALID, Dataset, Ints
from tlrec_edge.data.prepare import SplitPlan, prepare_tables
from tlrec_edge.data.presets import prepare_preset
from tlrec_edge.export import export_bundle
from tlrec_edge.linear.ease import Ease
from tlrec_edge.linear.item_cf import item_cf
from tlrec_edge.linear.matrices import user_item
from tlrec_edge.tabular.schema import Schema
from tlrec_edge.train import EdgeModel, TrainConfig, adapt
from tlrec_edge.train.item_features import fit_features
from tlrec_edge.train.served import history_of
from tlrec_edge.train.text import HASHED, open_encoder
from tlrec_edge.train.user_histories import UserHistories

Scores = NDArray[np.floating]
WINDOWS = {"valid": ("2011-07-15", "2011-09-15"), "test": ("2011-09-15", "2012-01-01")}
"""New items are first sold in the window; the model is trained on everything before it."""
NEIGHBOURS = 10
SAMPLED = 99


@dataclass(frozen=True)
class Window:
    """The data of one window.

    Attributes:
        known: Dataset of everything before the window.
        new: Title of each new item by its id.
        user: User of each test row, (m,).
        item: New item of each test row, (m,).
        negatives: New items that the user of a test row never bought, (m, new items).
    """

    known: Dataset
    new: Mapping[str, str]
    user: Ints
    item: Ints
    negatives: NDArray[np.bool_]


def make_window(everything: Dataset, start: str, end: str) -> Window:
    """Split the log at ``start``; test on new items that users with a history buy until ``end``."""
    log, title = everything.interactions, np.array(everything.features.text["title"], object)
    begin, stop = (int(pd.Timestamp(day).timestamp()) for day in (start, end))
    first = np.full(len(everything.items), stop, np.int64)
    np.minimum.at(first, log.item, log.time)
    users, items = np.array(everything.users, object), np.array(everything.items, object)
    past = log.select(log.time < begin)
    rows = pd.DataFrame(
        {"user": users[past.user], "item": items[past.item], "timestamp": past.time}
    )
    old = first < begin
    table = pd.DataFrame({"item": items[old], "title": title[old]})
    known = prepare_tables(
        [rows], [table], Schema(features={"title": "text"}), SplitPlan("time")
    ).dataset
    # The known part has no test rows: its last tenth is for validation, then all is trained on.
    role = np.where(known.split.role == TEST, VALID, known.split.role)
    known = known.replace(split=replace(known.split, role=role))
    new = np.flatnonzero((first >= begin) & (first < stop))
    place = np.full(len(items), -1, np.int32)
    place[new] = np.arange(len(new))
    tests = log.select((place[log.item] >= 0) & (log.time < stop))
    row = np.array([known.user_row.get(name, -1) for name in users[tests.user]], np.int32)
    user, item = row[row >= 0], place[tests.item[row >= 0]]
    bought = np.zeros((len(known.users), len(new)), bool)
    bought[user, item] = True
    return Window(known, dict(zip(items[new], title[new], strict=True)), user, item, ~bought[user])


def ranks(window: Window, scores: Scores, sampled: int = 0, seed: int = 0) -> NDArray[np.float64]:
    """Rank the item of each test row among its negatives, or ``sampled`` of them.

    ``scores`` has the shape (users, new items).
    """
    rows = scores[window.user]
    positive = np.take_along_axis(rows, window.item[:, None], 1)
    negatives = window.negatives
    if sampled:
        key = np.where(negatives, np.random.default_rng(seed).random(negatives.shape), 2.0)
        negatives = negatives & (np.argsort(np.argsort(key, axis=1), axis=1) < sampled)
    columns = np.ones((len(rows), 1), bool)
    return rank_of_positive(
        np.concatenate([positive, rows], 1), np.concatenate([columns, negatives], 1)
    )


def bundle_scores(model: EdgeModel, window: Window, text: str, folder: Path) -> Scores:
    """Score new items as a service does: export, ``add_items``, ``score``.

    Returns scores of shape (users, new items).
    """
    export_bundle(model, window.known, folder)
    with Recommender.open(folder) as rec:
        features = {item: {"title": title} for item, title in window.new.items()}
        vectors = None if text == HASHED else open_encoder(text).encode(rec.item_texts(features))
        rec.add_items(features, vectors)
        scores = np.zeros((len(window.known.users), len(features)), np.float32)
        for user in np.unique(window.user):
            history = history_of(window.known, window.known.interactions, int(user))
            scores[user] = rec.score(history, list(features))
    return scores


def tower_scores(model: EdgeModel, window: Window, text: str) -> Scores:
    """Score new items by the item tower alone, whatever its weight in the model is."""
    data, net = window.known, model.net
    titles = list(window.new.values())
    vectors = None if text == HASHED else open_encoder(text).encode(titles)
    inputs = model.features.encode({"title": titles}, len(titles), vectors)
    content = net.tower(*map(torch.from_numpy, inputs))[1].numpy()
    histories = UserHistories.of(
        data.interactions, model.rows(data), len(data.users), len(model.ids)
    )
    users = np.unique(window.user)
    scores = np.zeros((len(data.users), len(titles)), np.float32)
    scores[users] = model.user_vectors(histories, users) @ content.T
    return scores


def neighbour_scores(
    window: Window, known: Scores, new: Scores, penalty: float
) -> dict[str, Scores]:
    """Score a new item by the mean score of the known items with the nearest titles.

    ``known`` (items, t) and ``new`` (new items, t) are vectors of titles. Returns scores of shape
    (users, new items) by method.
    """
    near = np.argsort(-(new @ known.T), axis=1, kind="stable")[:, :NEIGHBOURS]
    data = window.known
    history = user_item(data.interactions, len(data.users), len(data.items))
    rows = np.arange(len(data.items), dtype=np.int32)
    return {
        "share of the history": history.toarray()[:, near].mean(2),
        "popularity": np.broadcast_to(
            np.asarray(history.sum(0)).ravel()[near].mean(1), (len(data.users), len(near))
        ),
        "itemCF": (history @ item_cf(history, rows)).toarray()[:, near].mean(2),
        "EASE": Ease(history, rows).scorer(penalty)(history)[:, near].mean(2),
    }


def title_vectors(window: Window, text: str) -> tuple[Scores, Scores]:
    """Return unit vectors of the known and the new titles.

    They are hashed n-grams fitted on the known titles, or come from a text encoder.
    """
    titles = list(window.known.features.text["title"]), list(window.new.values())
    if text == HASHED:
        features = fit_features(window.known)
        known, new = (features.encode_text({"title": part}, len(part)) for part in titles)
    else:
        encoder = open_encoder(text)
        known, new = (encoder.encode(part) for part in titles)
    return unit(known), unit(new)


def unit(vectors: Scores) -> Scores:
    """Return vectors of length 1; those of length 0 stay."""
    scaled: Scores = vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-9)
    return scaled


def compared_scores(window: Window, texts: Sequence[str], seed: int) -> dict[str, Scores]:
    """Return the scores of every method, (users, new items)."""
    shape = len(window.known.users), len(window.new)
    scores = {"random": np.random.default_rng(seed).random(shape)}
    for text in texts:
        model = adapt(
            window.known, window.known.domains, "scratch", None, TrainConfig(seed=seed, text=text)
        )
        penalty = model.provenance.choices.penalty
        nearest = neighbour_scores(window, *title_vectors(window, text), penalty)
        for method, values in nearest.items():
            scores[f"nearest titles ({text}), {method}"] = values
        scores[f"item tower ({text})"] = tower_scores(model, window, text)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "bundle"
            scores[f"tlrec-edge ({text})"] = bundle_scores(model, window, text, path)
    return scores


def main() -> None:
    """Read the command line, and print how well every method ranks new items."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path, help="online_retail.csv (UCI id 352), also gzipped.")
    parser.add_argument("--window", choices=WINDOWS, default="test", help="Window of new items.")
    parser.add_argument(
        "--text",
        action="append",
        help="Text encoder: hashed, wordllama or a folder; repeatable. (default: hashed)",
    )
    parser.add_argument("--seed", type=int, default=0, help="Seed of every random choice.")
    options = parser.parse_args()
    everything = prepare_preset("online-retail", [options.file], SplitPlan("time")).dataset
    logging.disable(logging.INFO)  # of the graph exporter
    window = make_window(everything, *WINDOWS[options.window])
    users = len(np.unique(window.user))
    purchases = f"{len(window.user):,} purchases by {users:,} users with a history"
    print(f"{options.window}: {len(window.new)} new items, {purchases}")
    values, texts = {}, options.text or [HASHED]
    print(f"{'NDCG@10 (SE clustered by user)':45}  99 sampled negatives   all new items")
    for name, scores in compared_scores(window, texts, options.seed).items():
        values[name] = [
            METRICS["ndcg"](ranks(window, scores, sampled), 10) for sampled in (SAMPLED, 0)
        ]
        cells = [clustered_mean(value, window.user) for value in values[name]]
        print(f"{name:45}  " + "   ".join(f"{cell.mean:.4f} ({cell.se:.4f})" for cell in cells))
    for text in texts:
        ours = values[f"tlrec-edge ({text})"]
        for over in (f"nearest titles ({text}), EASE", f"item tower ({text})"):
            lifts = [
                paired_lift(a, b, window.user) for a, b in zip(ours, values[over], strict=True)
            ]
            shown = "; ".join(f"{lift.mean:+.4f} ({lift.se:.4f}) {lift.verdict}" for lift in lifts)
            print(f"tlrec-edge ({text}) over {over}: {shown}")


if __name__ == "__main__":
    main()
