"""Compare EASE, the metrics and the standard errors with those of other libraries.

python -m benchmarks.references FOLDER

Each library gets an environment of its own in FOLDER, which later runs use again. The same data go
to both sides; a difference above rounding is an error. Needs tlrec-edge[build].
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from benchmarks.environments import library_python
from tlrec_edge.core.metrics import METRICS, clustered_mean, paired_lift, rank_of_positive
from tlrec_edge.linear.ease import Ease

HERE = Path(__file__).parent
PENALTY = 20.0
Arrays = dict[str, NDArray[np.float64]]


class Reference(NamedTuple):
    """Another library, what it computes, and by how much we may differ from it."""

    requirements: tuple[str, ...]
    tolerance: float
    """Largest difference: EASE is solved in single precision, the others in double."""


REFERENCES = {
    "rectools": Reference(("rectools==0.19.0",), 1e-6),
    "ir_measures": Reference(("ir-measures==0.4.3",), 1e-9),
    "statsmodels": Reference(("statsmodels==0.15.0",), 1e-12),
}


def make_data(seed: int = 0) -> Arrays:
    """Return interactions of 400 users with 150 items, and scored evaluation rows of them."""
    rng = np.random.default_rng(seed)
    users, items = 400, 150
    popularity = 1.0 / np.arange(1, items + 1) ** 0.7
    counts = rng.integers(2, 30, users)
    user = np.repeat(np.arange(users), counts)
    item = rng.choice(items, len(user), p=popularity / popularity.sum())
    pairs = np.unique(np.stack([user, item], 1), axis=0)
    # Rows of uneven users, so that clustering matters; continuous scores, so that none are tied.
    row_user = np.sort(rng.choice(users, 1000, p=counts / counts.sum()))
    scores = rng.normal(size=(1000, 101))
    scores[:, 0] += 1.5 + rng.normal(size=users)[row_user]
    other = scores + rng.normal(size=scores.shape)
    return {
        "user": pairs[:, 0],
        "item": pairs[:, 1],
        "row_user": row_user,
        "scores": scores,
        "other": other,
        "penalty": np.array(PENALTY),
    }


def ours(data: Arrays) -> dict[str, Arrays]:
    """Return what tlrec-edge computes, by reference and name."""
    shape = int(data["user"].max()) + 1, int(data["item"].max()) + 1
    entries = np.ones(len(data["user"]), np.float32), (data["user"], data["item"])
    primal = sp.csr_array(entries, shape=shape)
    few = primal[:100]  # fewer users than items: the dual form
    every = np.arange(shape[1], dtype=np.int32)
    ranks = [rank_of_positive(data[name]) for name in ("scores", "other")]
    ndcg = [METRICS["ndcg"](rank, 10) for rank in ranks]
    lift = paired_lift(ndcg[0], ndcg[1], data["row_user"])
    return {
        "rectools": {
            "weights": Ease(primal, every).weights(PENALTY).astype(np.float64),
            "dual": Ease(few, every).weights(PENALTY).astype(np.float64),
        },
        "ir_measures": {name: metric(ranks[0], 10) for name, metric in METRICS.items()},
        "statsmodels": {
            "mean": np.array([clustered_mean(ndcg[0], data["row_user"]).mean]),
            "se": np.array([clustered_mean(ndcg[0], data["row_user"]).se]),
            "lift": np.array([lift.mean]),
            "lift se": np.array([lift.se]),
        },
    }


def theirs(name: str, folder: Path, data: Path) -> Arrays:
    """Return what a library computes, in its own environment."""
    python = library_python(folder / name, *REFERENCES[name].requirements)
    out = folder / f"{name}.npz"
    script = HERE / f"run_{name}.py"
    subprocess.run([str(python), str(script), str(data), str(out)], check=True)
    with np.load(out) as arrays:
        return dict(arrays)


def largest_differences(folder: Path, names: list[str]) -> dict[tuple[str, str], float]:
    """Return the largest difference of each figure from each reference's."""
    folder.mkdir(parents=True, exist_ok=True)
    data = make_data()
    np.savez(folder / "data.npz", **data)
    own = ours(data)
    differences = {}
    for name in names:
        reference = theirs(name, folder, folder / "data.npz")
        for figure, values in own[name].items():
            differences[name, figure] = float(np.abs(values - reference[figure]).max())
    return differences


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="Folder for environments and data.")
    parser.add_argument("--only", nargs="+", choices=REFERENCES, default=list(REFERENCES))
    given = parser.parse_args()
    failed = False
    for (name, figure), difference in largest_differences(given.folder, given.only).items():
        tolerance = REFERENCES[name].tolerance
        verdict = "equal" if difference <= tolerance else "DIFFERENT"
        failed |= difference > tolerance
        print(f"{name:12} {figure:8} {verdict}, largest difference {difference:.1e}")
    sys.exit(int(failed))


if __name__ == "__main__":
    main()
