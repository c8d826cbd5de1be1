"""SASRec of RecBole: ``python run_sasrec.py data.npz out.npz --cpu-seconds 300 --loss CE``.

It has RecBole's defaults but for the size of a batch. With the loss CE all items are negatives,
with BPR a random one. It trains until the process has used its CPU seconds, even within an epoch.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import exchange
import numpy as np
import torch
from recbole.config import Config
from recbole.data import create_dataset
from recbole.data.dataloader import TrainDataLoader
from recbole.data.dataset import SequentialDataset
from recbole.data.utils import create_samplers
from recbole.model.sequential_recommender import SASRec
from recbole.utils import init_seed

LENGTH = 50
ROWS_AT_ONCE = 256


def write_interactions(data: exchange.Arrays, folder: Path) -> None:
    """Write RecBole's "atomic file"; its time is the position within the user's interactions."""
    user, item = data["user"], data["item"]
    first = np.flatnonzero(np.diff(user, prepend=-1))
    position = np.arange(len(user)) - np.repeat(first, np.diff(first, append=len(user)))
    (folder / "rows").mkdir()
    with (folder / "rows" / "rows.inter").open("w") as file:
        file.write("user_id:token\titem_id:token\ttimestamp:float\n")
        for values in zip(user, item, position, strict=True):
            file.write("{}\t{}\t{}\n".format(*values))


def make_config(folder: Path, loss: str, batch: int) -> Config:
    options = {
        "data_path": str(folder),
        "checkpoint_dir": str(folder),
        "hidden_size": 64,
        "MAX_ITEM_LIST_LENGTH": LENGTH,
        "loss_type": loss,
        "train_batch_size": batch,
        "use_gpu": False,
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        # All interactions are for training: the rows to judge by are held out already.
        "eval_args": {"split": {"RS": [1, 0, 0]}, "order": "TO", "group_by": None, "mode": "full"},
    }
    if loss == "CE":
        options["train_neg_sample_args"] = None
    return Config("SASRec", "rows", config_dict=options)


def train(model: SASRec, loader: TrainDataLoader, cpu_seconds: float, rate: float) -> float:
    """Train until the process has used ``cpu_seconds``; return the number of epochs."""
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    steps = 0
    model.train()
    while True:
        for batch in loader:
            if time.process_time() >= cpu_seconds:
                return steps / len(loader)
            optimizer.zero_grad()
            model.calculate_loss(batch).backward()
            optimizer.step()
            steps += 1


def last_items(data: exchange.Arrays, number: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return each user's last items (u, LENGTH), padded by 0 at the end, and how many they are.

    ``number`` is RecBole's number of every item, 0 for items that it does not know.
    """
    users = int(data["row_user"].max()) + 1
    item = number[data["history_item"]]
    user, item = data["history_user"][item > 0], item[item > 0]
    stop = np.searchsorted(user, np.arange(users), side="right")
    length = np.minimum(np.bincount(user, minlength=users), LENGTH)
    place = stop[:, None] - length[:, None] + np.arange(LENGTH)
    used = np.arange(LENGTH) < length[:, None]
    return np.where(used, item[np.minimum(place, len(item) - 1)], 0), length


def user_vectors(model: SASRec, items: np.ndarray, length: np.ndarray) -> np.ndarray:
    """Encode the users' last items (u, LENGTH); users without any get zeros."""
    vectors = np.zeros((len(items), model.hidden_size), np.float32)
    known = np.flatnonzero(length)
    model.eval()
    with torch.no_grad():
        for rows in np.split(known, np.arange(ROWS_AT_ONCE, len(known), ROWS_AT_ONCE)):
            vectors[rows] = model(torch.from_numpy(items[rows]), torch.from_numpy(length[rows]))
    return vectors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("out")
    parser.add_argument("--cpu-seconds", type=float, required=True)
    parser.add_argument("--loss", choices=("CE", "BPR"), default="CE")
    parser.add_argument("--batch", type=int, default=256)
    given = parser.parse_args()
    del sys.argv[1:]  # RecBole would read them as its own options.
    torch.set_num_threads(1)
    data = exchange.read(given.data)
    with tempfile.TemporaryDirectory() as folder:
        write_interactions(data, Path(folder))
        config = make_config(Path(folder), given.loss, given.batch)
        init_seed(config["seed"], config["reproducibility"])
        dataset: SequentialDataset = create_dataset(config)
        built = dataset.build()
        sampler = create_samplers(config, dataset, built)[0]
        loader = TrainDataLoader(config, built[0], sampler, shuffle=True)
        model = SASRec(config, loader.dataset)
        epochs = train(model, loader, given.cpu_seconds, config["learning_rate"])
    cost = exchange.cost_until_now()
    # RecBole's numbers of the items, as texts; number 0 fills up.
    known = dataset.field2id_token["item_id"][1:].astype(np.int64)
    number = np.zeros(int(data["items"]), np.int64)
    number[known] = np.arange(1, len(known) + 1)
    vectors = user_vectors(model, *last_items(data, number))
    items = model.item_embedding.weight.detach().numpy()[number]
    note = f"{epochs:.2f} epochs"
    exchange.write(given.out, exchange.score_rows(vectors, items, data), cost, note)


if __name__ == "__main__":
    main()
