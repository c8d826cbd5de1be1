from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from helpers import bundles
from helpers.counts import say
from helpers.paths import EXAMPLES
from helpers.scripts import load_script
from tlrec_edge import History, Recommender

with warnings.catch_warnings():
    # Starlette announces a new HTTP client; this test needs no more than the old one.
    warnings.filterwarnings("ignore", message="Using `httpx` with")
    from fastapi.testclient import TestClient

EXAMPLE = EXAMPLES / "embed_fastapi.py"


@pytest.fixture(scope="module")
def example() -> ModuleType:
    return load_script(EXAMPLE)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("service") / "bundle"
    bundles.build(path)
    return path


@pytest.fixture(scope="module")
def client(example: ModuleType, bundle: Path) -> Iterator[TestClient]:
    with TestClient(example.create_app(str(bundle))) as client:
        yield client


def test_answers_are_the_library_s(client: TestClient, bundle: Path) -> None:
    with Recommender.open(bundle) as rec:
        found = client.post(
            "/recommend", json={"items": ["i1", "i2"], "events": ["view", "cart"], "k": 5}
        )
        assert found.status_code == 200
        expected = rec.recommend(History(["i1", "i2"], ["view", "cart"]), 5)
        assert [row["item"] for row in found.json()] == list(expected.items)
        assert found.json()[0]["name"] == f"name of {expected.items[0]}"
        scores = client.post("/score", json={"items": ["i1"], "candidates": ["i5", "i6"]})
        assert scores.json() == rec.score(["i1"], ["i5", "i6"]).tolist()


def test_health(client: TestClient) -> None:
    assert client.get("/health").json()["candidates"] == 60


@pytest.mark.parametrize(
    "body",
    [
        {"items": ["i1"], "events": ["like"]},
        {"items": ["i1"], "k": 0},
        {"items": [""]},
        {"items": "i1"},
        {"items": ["i1"], "K": 5},
    ],
)
def test_bad_requests_are_422(client: TestClient, body: dict[str, object]) -> None:
    assert client.post("/recommend", json=body).status_code == 422


NUMBERS = [
    *("NaN", "Infinity", "-Infinity", "1e400", "-1e400", "1e-400", "-0.0", "1.5", "0", "-1"),
    *("3", "1000", "1001", "9" * 20, "9" * 400, "9" * 5000, "true", "false", "null"),
]
TEXTS = [
    *(
        '"i1"',
        '"i70"',
        '"unknown"',
        '""',
        '"view"',
        '"like"',
        '"\\ud800"',
        '"\\udfff\\ud800"',
        '"\\u0000"',
    ),
    *('"\\u001b[31m"', '"🛒"', '"é"', '"' + "x" * 256 + '"', '"' + "x" * 257 + '"', '"NaN"', '"1"'),
]
OTHERS = ["{}", "[]", "[[]]", '{"a": [NaN]}', '{"\\ud800": "\\ud800"}', "[" * 200 + "]" * 200]
KEYS = ["items", "events", "timestamps", "k", "candidates", "\\ud800", "more"]
BROKEN = [
    *(
        "",
        " ",
        "null",
        "NaN",
        "[]",
        '"x"',
        "{",
        "[" * 100_000,
        '{"items": ',
        "\ufeff{}",
        "1" * 5000,
    ),
    *(
        '{"items": "' + "\\ud800" * 5 + '"}',
        '{"k": ' + "9" * 100_000 + "}",
        '{"items": {"a": NaN}}',
    ),
]


def body(rng: np.random.Generator, path: str) -> bytes:
    """Return the body of a request in which some values, types or all of it are wrong."""
    if rng.random() < 0.1:
        broken = str(rng.choice(BROKEN)).encode()
        return broken if rng.random() < 0.5 else broken + b"\xff\xfe"

    def value() -> str:
        kind: list[str] = [NUMBERS, TEXTS, TEXTS, OTHERS][rng.integers(4)]
        return kind[rng.integers(len(kind))]

    def member(key: str) -> str:
        if rng.random() < 0.2:
            return f'"{key}": {value()}'
        usual = {"timestamps": NUMBERS, "k": NUMBERS}.get(key, TEXTS)
        if key == "k":
            return f'"k": {usual[rng.integers(len(usual))]}'
        size = int(rng.choice([0, 1, 2, 3, 3, 3, 50, 1025]))
        values = [usual[at] for at in rng.integers(len(usual), size=size)]
        return f'"{key}": [{", ".join(values)}]'

    shares = [0.35, 0.15, 0.15, 0.15, 0.16, 0.02, 0.02]
    keys = rng.choice(KEYS, int(rng.integers(1, 5)), p=shares).tolist()
    if path == "/recommend" and rng.random() < 0.9:  # which refuses what only /score takes
        keys = [key for key in keys if key != "candidates"]
    return ("{" + ", ".join(map(member, keys)) + "}").encode()


def check_bodies(client: TestClient, count: int) -> None:
    statuses: Counter[int] = Counter()
    for seed in range(count):
        rng = np.random.default_rng(seed)
        path = ("/recommend", "/score")[seed % 2]
        content = body(rng, path)
        answer = client.post(path, content=content, headers={"content-type": "application/json"})
        statuses[answer.status_code] += 1
        shown = f"seed {seed}: {content[:300]!r} gave {answer.text[:300]}"
        # 400: the body is not JSON. 422: it is, but not a request.
        assert answer.status_code in (200, 400, 422), shown
        answer.json()
        if answer.status_code == 422:
            assert all("input" not in fault for fault in answer.json()["detail"]), shown
    say(f"{count} bodies: " + ", ".join(f"{n} times {status}" for status, n in statuses.items()))
    assert statuses[200] > count / 20
    assert statuses[422] > count / 4


def test_no_body_is_an_error_of_the_server(client: TestClient) -> None:
    check_bodies(client, 300)


@pytest.mark.slow
def test_none_of_5000_bodies_is_an_error_of_the_server(client: TestClient) -> None:
    check_bodies(client, 5000)


@pytest.mark.parametrize(
    "text",
    [
        '{"items": ["i1"], "timestamps": [NaN]}',
        '{"items": ["i1"], "timestamps": [Infinity]}',
        '{"items": ["i1"], "timestamps": [1e400]}',
        '{"items": ["\\ud800"]}',
        '{"items": ["i1"], "k": NaN}',
        '{"items": {"a": -Infinity}}',
        '{"items": ["i1"], "events": ["\\udfff"]}',
        '{"items": ["i1"], "k": 1e999}',
        '{"items": ["i1"], "timestamps": [1, 2]}',
        '{"items": ["i1"], "timestamps": [1e300]}',
    ],
)
def test_values_that_json_cannot_repeat_are_422(client: TestClient, text: str) -> None:
    headers = {"content-type": "application/json"}
    answer = client.post("/recommend", content=text.encode(), headers=headers)
    assert answer.status_code == 422, answer.text
    assert answer.json()["detail"]


def test_the_example_is_short() -> None:
    assert len(EXAMPLE.read_text("utf-8").splitlines()) <= 60
