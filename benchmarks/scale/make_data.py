"""Make interactions and items of any size: clusters of interests, Zipf popularity, two markets.

python benchmarks/scale/make_data.py --interactions 1000000 --items 100000 --out tables/
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

MARKETS = ("old", "new")
WORDS = (
    "oak",
    "steel",
    "linen",
    "glass",
    "small",
    "large",
    "blue",
    "red",
    "round",
    "plain",
    "fine",
    "light",
)
A_USER = 20
"""Mean interactions a user; their spread is log-normal, so a few have hundreds."""
LOYAL = 0.8
"""Share of interactions inside a user's three tastes."""
YEAR = 365 * 86_400
CHUNK = 50_000


def make_items(items: int, tastes: int, rng: np.random.Generator) -> pa.Table:
    """Item i has market i % 2 and taste (i // 2) % tastes; low numbers are popular."""
    taste = np.arange(items) // 2 % tastes
    words = np.array(WORDS)[rng.integers(0, len(WORDS), (items, 2))]
    return pa.table(
        {
            "item_id": [f"I{i}" for i in range(items)],
            "domain": [MARKETS[i % 2] for i in range(items)],
            "title": [
                f"{a} {b} thing{t} model {i % 97}"
                for i, ((a, b), t) in enumerate(zip(words, taste, strict=True))
            ],
            "category": [f"taste {t}" for t in taste],
            "price": np.exp(rng.normal(2.0 + taste % 5 / 2, 0.5, items)).round(2),
        }
    )


def make_log(
    interactions: int, items: int, tastes: int, rng: np.random.Generator
) -> Iterator[pa.Table]:
    """Yield the log of CHUNK users at a time: half of the tastes' shelves are in the new market."""
    users = max(interactions // A_USER, 2)
    for first in range(0, users, CHUNK):
        size = min(CHUNK, users - first)
        mine = rng.integers(0, tastes, (size, 3))
        share = rng.lognormal(0.0, 1.0, size)
        times = rng.multinomial(
            interactions * (first + size) // users - interactions * first // users,
            share / share.sum(),
        )
        user = np.repeat(np.arange(size), times)
        n = len(user)
        taste = np.where(
            rng.random(n) < LOYAL, mine[user, rng.integers(0, 3, n)], rng.integers(0, tastes, n)
        )
        market = (rng.random(n) < 0.5).astype(int)
        members = (
            np.maximum((items - market + 1) // 2 - taste + tastes - 1, 1) // tastes
        )  # items of a taste and market
        place = (
            np.floor((members + 1.0) ** rng.random(n)).astype(int) - 1
        )  # probability as 1 / (1 + place)
        item = np.minimum(((place * tastes + taste) * 2) + market, items - 1)
        yield pa.table(
            {
                "user_id": np.char.add("U", (first + user).astype(str)),
                "item_id": np.char.add("I", item.astype(str)),
                "timestamp": 1_700_000_000 + rng.integers(0, YEAR, n),
            }
        )


def write(tables: Iterator[pa.Table], path: Path) -> None:
    """Write tables under each other, as CSV or Parquet by the file's name."""
    first = next(tables)
    make = pa.csv.CSVWriter if path.suffix == ".csv" else pa.parquet.ParquetWriter
    with make(path, first.schema) as writer:
        writer.write_table(first)
        for table in tables:
            writer.write_table(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--interactions", type=int, default=100_000)
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--format", choices=("csv", "parquet"), default="csv")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    tastes, rng = max(5, min(500, given.items // 100)), np.random.default_rng(given.seed)
    write(iter([make_items(given.items, tastes, rng)]), given.out / f"items.{given.format}")
    write(make_log(given.interactions, given.items, tastes, rng), given.out / f"log.{given.format}")


if __name__ == "__main__":
    main()
