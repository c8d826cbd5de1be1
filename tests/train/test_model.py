"""The two towers and the model folder: shapes, padding, configs, storage and refusals."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers import synthetic
from helpers.networks import SMALL, network
from tlrec_edge.data.task import make_tasks
from tlrec_edge.errors import ModelError
from tlrec_edge.quantize import Budget, CompressConfig, quantize_tables
from tlrec_edge.train import EdgeModel, TrainConfig
from tlrec_edge.train.fit import FitConfig
from tlrec_edge.train.model import PAD, ModelConfig
from tlrec_edge.train.user_histories import UserHistories

each_size = pytest.mark.parametrize("size", ["fast", "base"])


def history(length: int, past: int, junk: int = 0) -> tuple[torch.Tensor, ...]:
    """Return a history of ``past`` items, right-aligned; its padding holds ``junk``."""
    present = torch.arange(length)[None] >= length - past
    item = torch.where(present, torch.arange(length)[None] % 7, junk)
    event, age = torch.where(present, 3, junk % 5), torch.where(present, 2, junk - 1)
    return item, event, age, present


@each_size
def test_shapes(size: str) -> None:
    net = network(replace(SMALL, size=size))
    assert net.history_vectors(torch.arange(7)).shape == (7, 8)
    assert net.candidate_vectors().shape == (4, 8)
    assert net.candidate_vectors(torch.tensor([2])).shape == (1, 8)
    users = net.users(*(torch.cat([part, part]) for part in history(6, 3)))
    assert users.shape == (2, 8)
    torch.testing.assert_close(users[0], users[1])


@each_size
def test_the_content_of_the_padding_does_not_matter(size: str) -> None:
    net = network(replace(SMALL, size=size))
    for past in range(1, 7):
        torch.testing.assert_close(
            net.users(*history(6, past)), net.users(*history(6, past, junk=5)), atol=1e-6, rtol=0
        )


@each_size
def test_more_padding_does_not_matter(size: str) -> None:
    """A network with more positions, the new ones before the old, gives the same vector."""
    short = network(replace(SMALL, size=size))
    long = network(replace(SMALL, size=size, history=9))
    state = short.state_dict()
    for name, value in long.state_dict().items():
        if name.endswith("position") or name == "position_bias":
            state[name] = torch.cat([torch.randn_like(value[:3]), state[name]])
    long.load_state_dict(state)
    vectors = torch.randn(2, 6, 8)
    log_weight = torch.tensor([[PAD, PAD, 0.5, 0.1, 0, 0], [0.3, 0, 0, 0.2, 0, 1]])
    padded = torch.cat([torch.randn(2, 3, 8), vectors], 1)
    bias = torch.cat([torch.full((2, 3), PAD), log_weight], 1)
    torch.testing.assert_close(
        short.encoder(vectors, log_weight), long.encoder(padded, bias), atol=1e-6, rtol=0
    )


@each_size
def test_the_order_of_a_history_matters_if_positions_differ(size: str) -> None:
    net = network(replace(SMALL, size=size))
    item, *rest = history(6, 6)
    assert (net.users(item, *rest) - net.users(item.flip(1), *rest)).abs().max() > 1e-4


def test_content_gives_a_vector_to_an_item_without_id() -> None:
    net = network(SMALL)
    with torch.no_grad():
        net.history_id.weight.zero_()
        net.candidate_id.weight.zero_()
    assert (net.history_vectors(torch.arange(7)).abs().sum(1) > 0).all()
    plain = network(replace(SMALL, text=0, numeric=0, vocabulary=()))
    assert plain.tower is None
    torch.testing.assert_close(plain.candidate_vectors(), plain.candidate_id.weight)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ModelConfig(size="huge"), r"size must be one of \['base', 'fast'\], not 'huge'"),
        (lambda: ModelConfig(width=9), "width 9 must be a multiple of heads 2"),
        (lambda: ModelConfig(feed_forward=257), r"feed_forward must lie in 1\.\.256"),
        (lambda: ModelConfig(feed_forward=0), "not 0"),
        (lambda: FitConfig(batch=0), "batch must be at least 1"),
        (lambda: FitConfig(epochs=-1), "epochs must be 0 or more"),
        (lambda: CompressConfig(Budget(share=0)), "more than 0 % and at most 100 %"),
        (lambda: CompressConfig(Budget(k=0)), "cut-off of a metric must be at least 1, not 0"),
        (lambda: CompressConfig(minutes=0), "minutes must be above 0, not 0"),
        (
            lambda: CompressConfig(machine="mars"),
            "machine must be one of this, avx2, avx512-vnni, arm64",
        ),
        (lambda: CompressConfig(recovery_steps=-1), "recovery_steps must be at least 0"),
        (lambda: TrainConfig(size="huge"), "size must be one of"),
        (lambda: TrainConfig(epochs=-1), "epochs must be at least 0"),
        (lambda: TrainConfig(rate=0.0), "rate must be above 0"),
        (lambda: TrainConfig(tune_rate=float("nan")), "tune_rate must be above 0, not nan"),
        (lambda: TrainConfig(forget=1.5), r"forget must lie in \[0, 1\]"),
    ],
)
def test_configs_check_themselves(make: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()  # type: ignore[operator]  # one of several classes


def test_configs_survive_json() -> None:
    assert ModelConfig.from_json(json.loads(json.dumps(SMALL.to_json()))) == SMALL
    assert TrainConfig(**json.loads(json.dumps(asdict(synthetic.CONFIG)))) == synthetic.CONFIG


def scores(model: EdgeModel) -> np.ndarray:
    data = synthetic.dataset()
    task = make_tasks(data, ("small",)).final
    return model.scorer(data, task)(np.unique(task.rows.user))


@each_size
@pytest.mark.parametrize("tables", ["float32", "int8"])
def test_a_stored_model_scores_the_same(tmp_path: Path, size: str, tables: str) -> None:
    model = synthetic.model("finetune", size)
    model = quantize_tables(model) if tables == "int8" else model
    model.save(tmp_path / "model")
    again = EdgeModel.load(tmp_path / "model")
    np.testing.assert_array_equal(scores(again), scores(model))
    assert again.provenance == model.provenance
    assert (again.ids, again.names, again.features.vocabulary) == (
        model.ids,
        model.names,
        model.features.vocabulary,
    )
    model.save(tmp_path / "model")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


def test_a_model_without_content_is_stored_too(tmp_path: Path) -> None:
    from tlrec_edge.train import adapt

    data = synthetic.ids_only()
    model = adapt(data, ("all",), "scratch", None, synthetic.CONFIG)
    model.save(tmp_path / "m")
    task = make_tasks(data, ("all",)).final
    user = np.unique(task.rows.user)
    np.testing.assert_array_equal(
        EdgeModel.load(tmp_path / "m").scorer(data, task)(user), model.scorer(data, task)(user)
    )


def test_nothing_else_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ModelError, match=r"is not a model .*; choose another --out"):
        synthetic.model().save(tmp_path)
    with pytest.raises(ModelError, match="is not a model"):
        synthetic.model().save(tmp_path / "notes.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_path_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ModelError, match="cannot write"):
        synthetic.model().save(tmp_path / "file" / "model")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    synthetic.model().save(tmp_path / "model")
    return tmp_path / "model"


def change_meta(folder: Path, **changes: object) -> None:
    file = folder / "model.json"
    file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | changes), "utf-8")


def change_provenance(folder: Path, **changes: object) -> None:
    change_meta(
        folder, about=json.loads((folder / "model.json").read_text("utf-8"))["about"] | changes
    )


def drop_meta(folder: Path, name: str) -> None:
    file = folder / "model.json"
    meta = json.loads(file.read_text("utf-8"))
    del meta[name]
    file.write_text(json.dumps(meta), "utf-8")


DAMAGE: dict[str, Callable[[Path], object]] = {
    "provenance left out": lambda folder: drop_meta(folder, "about"),
    "no arrays": lambda folder: (folder / "arrays.npz").unlink(),
    "cut arrays": lambda folder: (folder / "arrays.npz").write_bytes(
        (folder / "arrays.npz").read_bytes()[:2000]
    ),
    "no zip": lambda folder: (folder / "arrays.npz").write_bytes(b"no zip"),
    "empty arrays": lambda folder: (folder / "arrays.npz").write_bytes(b""),
    "altered arrays": lambda folder: (folder / "arrays.npz").write_bytes(
        (folder / "arrays.npz").read_bytes()[:3000]
        + b"\0" * 64
        + (folder / "arrays.npz").read_bytes()[3064:]
    ),
    "cut json": lambda folder: (folder / "model.json").write_text('{"format": 1, '),
    "json of a list": lambda folder: (folder / "model.json").write_text("[]"),
    "deep json": lambda folder: (folder / "model.json").write_text("[" * 100_000),
    "a key twice": lambda folder: (folder / "model.json").write_text(
        (folder / "model.json").read_text("utf-8").replace("{", '{"format": 3, ', 1), "utf-8"
    ),
    "no utf-8": lambda folder: (folder / "model.json").write_bytes(b"\xff\xfe{}"),
    "newer format": lambda folder: change_meta(folder, format=99),
    "wrong sizes": lambda folder: change_meta(folder, items=3),
    "short ids": lambda folder: change_meta(folder, ids=["a"]),
    "wrong config": lambda folder: change_meta(folder, config={"size": "huge"}),
    "no provenance": lambda folder: change_meta(folder, about=None),
    "empty provenance": lambda folder: change_meta(folder, about={}),
    "a list as provenance": lambda folder: change_meta(folder, about=[]),
    "a word as domains": lambda folder: change_provenance(folder, domains="small"),
    "unknown hyperparameter": lambda folder: change_provenance(folder, train={"depth": 3}),
    "choices without a mix": lambda folder: change_provenance(folder, choices={"epochs": 3}),
    "a number as compression": lambda folder: change_provenance(folder, compression=3),
    "cut arrays of before the refit": lambda folder: (folder / "before_refit.npz").write_bytes(
        (folder / "before_refit.npz").read_bytes()[:2000]
    ),
    "a number as before the refit": lambda folder: change_meta(folder, before_refit=3),
    "arrays of before the refit that no file has": lambda folder: change_meta(
        folder, before_refit={"same": ["bias", "net.depth"]}
    ),
    "other sizes before the refit": lambda folder: change_meta(
        folder, before_refit={"same": [], "items": 3}
    ),
    "unknown mix": lambda folder: change_meta(folder, mix={"shallow": 1.0}),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_folder_is_refused(folder: Path, damage: str) -> None:
    DAMAGE[damage](folder)
    with pytest.raises(ModelError, match=r"cannot be read as a model|is missing; train") as caught:
        EdgeModel.load(folder)
    assert str(folder) in str(caught.value)


def test_a_folder_without_a_model_is_refused_with_a_remedy(tmp_path: Path, folder: Path) -> None:
    shutil.rmtree(folder)
    problems = {folder: "does not exist", tmp_path: "is not a model folder"}
    for path, problem in problems.items():
        with pytest.raises(ModelError, match=rf"{path} {problem}.*tlrec-edge pretrain"):
            EdgeModel.load(path)


def test_source_models_and_other_splits_are_refused() -> None:
    with pytest.raises(ModelError, match="source model: adapt it to a target first"):
        synthetic.source().check_split(synthetic.dataset())
    with pytest.raises(ModelError, match="another split than this dataset's"):
        synthetic.model().check_split(synthetic.dataset("last-basket"))
    synthetic.model().check_split(synthetic.dataset())


def test_a_candidate_the_model_lacks_is_named() -> None:
    data = synthetic.dataset()
    task = make_tasks(data, ("big",)).final
    with pytest.raises(ModelError, match="does not know candidate 'b0'"):
        synthetic.model().scorer(data, task)


def test_an_empty_history_scores_by_popularity() -> None:
    data, model = synthetic.dataset(), synthetic.model()
    task = make_tasks(data, ("small",)).final
    alone = replace(task, history=task.history.select(task.history.user != 3))
    found = model.scorer(data, alone)(np.array([3, 4], np.int32))
    np.testing.assert_allclose(
        found[0], (model.score_weights.bias * model.bias)[model.rows(data)[task.candidates]]
    )
    assert np.abs(found[1] - found[0]).max() > 0.1


def test_histories_keep_the_most_recent_items(monkeypatch: pytest.MonkeyPatch) -> None:
    from tlrec_edge.train import user_histories

    data = synthetic.dataset()
    rows = np.arange(len(data.items), dtype=np.int32)
    monkeypatch.setattr(user_histories, "MAX_HISTORY", 5)
    histories = UserHistories.of(data.interactions, rows, len(data.users), len(data.items))
    log = data.interactions
    for user in (0, 7, 100):
        items = log.item[log.user == user][::-1].tolist()
        assert set(histories.matrix[[user]].indices.tolist()) == set(list(dict.fromkeys(items))[:5])
