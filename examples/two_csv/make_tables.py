"""Make up the two tables of a shop, with Chinese or English column names.

python make_tables.py --by category --headers zh --out tables/
"""

from __future__ import annotations

import argparse
import csv
import random
from pathlib import Path

CATEGORIES = {
    "咖啡": "coffee",
    "茶": "tea",
    "跑鞋": "running shoes",
    "书": "books",
    "玩具": "toys",
    "耳机": "headphones",
}
GOODS_PER_CATEGORY = 20
USERS = 300
HEADERS = {
    "zh": {
        "user": "用户ID",
        "item": "商品ID",
        "category": "分类",
        "clicks": "点击次数",
        "purchases": "购买次数",
        "price": "价格",
        "sales": "销量",
        "rating": "评分",
    },
    "en": {
        "user": "user_id",
        "item": "item_id",
        "category": "category",
        "clicks": "clicks",
        "purchases": "purchases",
        "price": "price",
        "sales": "sales",
        "rating": "rating",
    },
}
Row = list[str | int | float]


def make_goods(rng: random.Random, names: list[str]) -> list[Row]:
    """Return item, price, sales, rating and category; items with good ratings sell well."""
    goods: list[Row] = []
    for kind, name in enumerate(names):
        for number in range(GOODS_PER_CATEGORY):
            rating = round(min(5.0, max(1.0, rng.gauss(3.8, 0.6))), 1)
            price = round(rng.lognormvariate(3.0 + 0.4 * kind, 0.5), 2)
            sales = int(rng.expovariate(1 / 30) * rating**2)
            goods.append([f"G{kind}{number:02d}", price, sales, rating, name])
    return goods


def make_behaviour(rng: random.Random, names: list[str], goods: list[Row], by: str) -> list[Row]:
    """Return user, category or item, clicks and purchases.

    A user likes one or two categories, and sometimes clicks on others.
    """
    rows: list[Row] = []
    for number in range(USERS):
        liked = rng.sample(names, rng.choice([1, 2]))
        seen: dict[str, list[int]] = {}
        for _ in range(rng.randint(6, 15)):
            category = rng.choice(liked) if rng.random() < 0.85 else rng.choice(names)
            choices = [good for good in goods if good[4] == category]
            good = rng.choices(choices, weights=[int(good[2]) + 5 for good in choices])[0]
            counts = seen.setdefault(category if by == "category" else str(good[0]), [0, 0])
            counts[0] += rng.randint(1, 5)
            counts[1] += rng.random() < 0.4
        rows += [[f"U{number:03d}", key, *counts] for key, counts in seen.items()]
    return rows


def write(path: Path, header: list[str], rows: list[Row]) -> None:
    """Write a CSV file."""
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def main() -> None:
    """Read the command line and write both tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--by", choices=["category", "item"], default="category", help="Level of the interactions."
    )
    parser.add_argument("--headers", choices=list(HEADERS), default="zh", help="Language.")
    parser.add_argument("--seed", type=int, default=0, help="Seed of the tables.")
    parser.add_argument("--out", type=Path, required=True, help="Folder to write.")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    head = HEADERS[options.headers]
    names = list(CATEGORIES if options.headers == "zh" else CATEGORIES.values())
    goods = make_goods(rng, names)
    options.out.mkdir(parents=True, exist_ok=True)
    columns = [head[name] for name in ("item", "price", "sales", "rating", "category")]
    write(options.out / "goods_features.csv", columns, goods)
    columns = [head[name] for name in ("user", options.by, "clicks", "purchases")]
    write(options.out / "user_behavior.csv", columns, make_behaviour(rng, names, goods, options.by))


if __name__ == "__main__":
    main()
