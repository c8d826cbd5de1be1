from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from helpers import bundles
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
    ],
)
def test_bad_requests_are_422(client: TestClient, body: dict[str, object]) -> None:
    assert client.post("/recommend", json=body).status_code == 422


def test_the_example_is_short() -> None:
    assert len(EXAMPLE.read_text("utf-8").splitlines()) <= 60
