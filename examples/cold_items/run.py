"""Items of Online Retail that nobody had bought yet, ranked by their titles alone.

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
from tlrec_edge.data.schema import Schema
from tlrec_edge.export import export_bundle
from tlrec_edge.linear.ease import Ease
from tlrec_edge.linear.item_cf import item_cf
from tlrec_edge.linear.matrices import user_item
from tlrec_edge.train import EdgeModel, TrainConfig, adapt
from tlrec_edge.train.edge_model import UserHistories
from tlrec_edge.train.item_features import fit_features
from tlrec_edge.train.served import history_of
from tlrec_edge.train.text import HASHED, open_encoder

Scores = NDArray[np.floating]
WINDOWS = {"valid": ("2011-07-15", "2011-09-15"), "test": ("2011-09-15", "2012-01-01")}
"""When an item must have been first sold to count as new; all before the window is what is known."""
NEIGHBOURS = 10
SAMPLED = 99


@dataclass(frozen=True)
class Window:
    """``known`` is all that was sold before; ``new`` (id -> title) came later.

    Question m asks for user ``user[m]`` of ``known`` and new item ``item[m]`` among those that ``negatives[m]`` marks.
    """

    known: Dataset
    new: Mapping[str, str]
    user: Ints
    item: Ints
    negatives: NDArray[np.bool_]


def make_window(everything: Dataset, start: str, end: str) -> Window:
    """Cut the log at ``start``; ask for what users with a past bought of the new items until ``end``."""
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
    # Nothing of the past is a test: its last tenth is for choices, and the final fit learns from all of it.
    role = np.where(known.split.role == TEST, VALID, known.split.role)
    known = known.replace(split=replace(known.split, role=role))
    new = np.flatnonzero((first >= begin) & (first < stop))
    place = np.full(len(items), -1, np.int32)
    place[new] = np.arange(len(new))
    asked = log.select((place[log.item] >= 0) & (log.time < stop))
    row = np.array([known.user_row.get(name, -1) for name in users[asked.user]], np.int32)
    user, item = row[row >= 0], place[asked.item[row >= 0]]
    bought = np.zeros((len(known.users), len(new)), bool)
    bought[user, item] = True
    return Window(known, dict(zip(items[new], title[new], strict=True)), user, item, ~bought[user])


def ranks(window: Window, scores: Scores, sampled: int = 0, seed: int = 0) -> NDArray[np.float64]:
    """Rank each question's item among all its negatives, or ``sampled`` of them. ``scores``: (users, new items)."""
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
    """Score new items as a service would: export, ``add_items``, ``score``. Shape (users, new items)."""
    export_bundle(model, window.known, folder)
    with Recommender.open(folder) as rec:
        features = {item: {"title": title} for item, title in window.new.items()}
        rec.add_items(
            features,
            None if text == HASHED else open_encoder(text).encode(rec.item_texts(features)),
        )
        scores = np.zeros((len(window.known.users), len(features)), np.float32)
        for user in np.unique(window.user):
            history = history_of(window.known, window.known.interactions, int(user))
            scores[user] = rec.score(history, list(features))
    return scores


def tower_scores(model: EdgeModel, window: Window, text: str) -> Scores:
    """Score new items by the tower's content vectors alone, whatever weight the deep part has."""
    data, net = window.known, model.net
    titles = list(window.new.values())
    vectors = None if text == HASHED else open_encoder(text).encode(titles)
    inputs = model.features.encode({"title": titles}, len(titles), vectors)
    content = net.tower(*map(torch.from_numpy, inputs))[1].numpy()
    histories = UserHistories.of(
        data.interactions, model.rows(data), len(data.users), len(model.ids)
    )
    asked = np.unique(window.user)
    scores = np.zeros((len(data.users), len(titles)), np.float32)
    scores[asked] = model.user_vectors(histories, asked) @ content.T
    return scores


def neighbour_scores(
    window: Window, known: Scores, new: Scores, penalty: float
) -> dict[str, Scores]:
    """Score a new item by the mean score of the known items with the nearest titles. Shapes (users, new items).

    ``known`` (items, t) and ``new`` (new items, t) are vectors of titles.
    """
    near = np.argsort(-(new @ known.T), axis=1, kind="stable")[:, :NEIGHBOURS]
    data = window.known
    past = user_item(data.interactions, len(data.users), len(data.items))
    every = np.arange(len(data.items), dtype=np.int32)
    return {
        "share of the history": past.toarray()[:, near].mean(2),
        "popularity": np.broadcast_to(
            np.asarray(past.sum(0)).ravel()[near].mean(1), (len(data.users), len(near))
        ),
        "itemCF": (past @ item_cf(past, every)).toarray()[:, near].mean(2),
        "EASE": Ease(past, every).scorer(penalty)(past)[:, near].mean(2),
    }


def title_vectors(window: Window, text: str) -> tuple[Scores, Scores]:
    """Return unit vectors of the known and the new titles: hashed n-grams fitted on the known ones, or an encoder's."""
    titles = list(window.known.features.text["title"]), list(window.new.values())
    if text == HASHED:
        features = fit_features(window.known)
        known, new = (features.encode_text({"title": part}, len(part)) for part in titles)
    else:
        encoder = open_encoder(text)
        known, new = (encoder.encode(part) for part in titles)
    return tuple(v / np.linalg.norm(v, axis=1, keepdims=True).clip(1e-9) for v in (known, new))  # type: ignore[return-value]  # two tables in, two out


def contenders(window: Window, texts: Sequence[str], seed: int) -> dict[str, Scores]:
    """Return the scores (users, new items) of everything that is compared."""
    found = {
        "random": np.random.default_rng(seed).random((len(window.known.users), len(window.new)))
    }
    for text in texts:
        model = adapt(
            window.known, window.known.domains, "scratch", None, TrainConfig(seed=seed, text=text)
        )
        penalty = model.provenance.choices.penalty
        nearest = neighbour_scores(window, *title_vectors(window, text), penalty)
        found |= {f"nearest titles ({text}), {score}": values for score, values in nearest.items()}
        found[f"item tower ({text})"] = tower_scores(model, window, text)
        with tempfile.TemporaryDirectory() as folder:
            found[f"tlrec-edge ({text})"] = bundle_scores(
                model, window, text, Path(folder) / "bundle"
            )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path, help="online_retail.csv (UCI id 352), may be gzipped")
    parser.add_argument("--window", choices=WINDOWS, default="test")
    parser.add_argument(
        "--text",
        action="append",
        help="hashed, wordllama or a folder; repeatable (default: hashed)",
    )
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    everything = prepare_preset("online-retail", [given.file], SplitPlan("time")).dataset
    logging.disable(logging.INFO)  # of the graph exporter
    window = make_window(everything, *WINDOWS[given.window])
    users = len(np.unique(window.user))
    print(
        f"{given.window}: {len(window.new)} new items, {len(window.user):,} purchases by {users:,} users with a past"
    )
    values, texts = {}, given.text or [HASHED]
    print(f"{'NDCG@10 (SE clustered by user)':45}  99 sampled negatives   all new items")
    for name, scores in contenders(window, texts, given.seed).items():
        values[name] = [
            METRICS["ndcg"](ranks(window, scores, sampled), 10) for sampled in (SAMPLED, 0)
        ]
        cells = [clustered_mean(value, window.user) for value in values[name]]
        print(f"{name:45}  " + "   ".join(f"{cell.mean:.4f} ({cell.se:.4f})" for cell in cells))
    for text in texts:
        own = values[f"tlrec-edge ({text})"]
        for over in (f"nearest titles ({text}), EASE", f"item tower ({text})"):
            lifts = [paired_lift(a, b, window.user) for a, b in zip(own, values[over], strict=True)]
            shown = "; ".join(f"{lift.mean:+.4f} ({lift.se:.4f}) {lift.verdict}" for lift in lifts)
            print(f"tlrec-edge ({text}) over {over}: {shown}")


if __name__ == "__main__":
    main()
