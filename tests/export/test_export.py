"""Export: the bundle scores as the model does, proves it, and is not written where it does not."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from helpers import synthetic
from helpers.networks import fast_encoder
from helpers.quantized import TABLES, model_of
from tlrec_edge import History, Recommender
from tlrec_edge.bundle.reader import Bundle
from tlrec_edge.data.task import make_tasks
from tlrec_edge.errors import BundleError, ExportError, TlrecError
from tlrec_edge.evaluation import evaluate
from tlrec_edge.evaluation.cards import measure_cards
from tlrec_edge.evaluation.compared import open_compared_model
from tlrec_edge.evaluation.evaluate import model_ranker
from tlrec_edge.export import (
    IR_VERSION,
    OPSET,
    ExportConfig,
    Parity,
    encoder_graph,
    export_bundle,
    item_tower_graph,
)
from tlrec_edge.export import export as export_module
from tlrec_edge.export import items as items_module
from tlrec_edge.quantize.costs import served_bytes
from tlrec_edge.train import EdgeModel, adapt
from tlrec_edge.train.bundle_arrays import storage, stored_arrays
from tlrec_edge.train.model import PAD
from tlrec_edge.train.served import history_of
from tlrec_edge.train.user_histories import UserHistories

CASES = [
    ("finetune", "fast", "int8"),
    ("finetune", "base", "int8"),
    ("scratch", "fast", "float32"),
    ("finetune", "fast", "float32"),
    ("finetune", "fast", "int6"),
    ("finetune", "base", "int4"),
    ("finetune", "fast", "mixed"),
    ("scratch", "fast", "weights"),
]


@cache
def exported(mode: str, size: str, tables: str, folder: Path) -> tuple[Path, Parity]:
    path = folder / f"{mode}-{size}-{tables}"
    return path, export_bundle(
        model_of(mode, size, tables), synthetic.dataset(), path, ExportConfig("plain")
    )


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bundles")


def torch_scores(model: EdgeModel, users: np.ndarray) -> np.ndarray:
    data = synthetic.dataset()
    return np.asarray(model.scorer(data, make_tasks(data, ("small",)).final)(users))


def bundle_scores(rec: Recommender, users: np.ndarray) -> np.ndarray:
    data = synthetic.dataset()
    task = make_tasks(data, ("small",)).final
    names = [data.items[row] for row in task.candidates]
    return np.stack([rec.score(history_of(data, task.history, int(user)), names) for user in users])


@pytest.mark.parametrize(("mode", "size", "tables"), CASES)
def test_the_float_path_is_the_torch_model(folder: Path, mode: str, size: str, tables: str) -> None:
    path, parity = exported(mode, size, tables, folder)
    users = np.arange(0, 240, 5, dtype=np.int32)
    wanted = torch_scores(model_of(mode, size, tables), users)
    with Recommender.open(path, verify="full", deterministic=False) as rec:
        assert np.abs(bundle_scores(rec, users) - wanted).max() <= 1e-4
    assert parity.max_error <= 1e-4
    assert parity.top10_overlap == 1.0
    assert parity.users == 64


@pytest.mark.parametrize(
    ("size", "tables"), [("fast", "int8"), ("base", "int8"), ("base", "int4"), ("fast", "mixed")]
)
def test_the_exact_path_keeps_its_stated_bound(folder: Path, size: str, tables: str) -> None:
    path, parity = exported("finetune", size, tables, folder)
    users = np.arange(240, dtype=np.int32)
    with Recommender.open(path) as rec, Recommender.open(path, deterministic=False) as floats:
        assert rec.deterministic
        off = np.abs(bundle_scores(rec, users) - bundle_scores(floats, users)).max()
    assert parity.exact_max_error is not None
    assert parity.exact_bound is not None
    assert parity.exact_rms_share is not None
    assert off <= parity.exact_bound + 1e-4
    assert parity.exact_max_error <= parity.exact_bound + 1e-4
    assert parity.exact_rms_share < 0.01


@pytest.mark.parametrize("tables", ["int8", "int6", "mixed"])
def test_a_pair_scores_the_same_alone_and_in_any_batch(folder: Path, tables: str) -> None:
    path, _ = exported("finetune", "fast", tables, folder)
    data = synthetic.dataset()
    items = [name for name in data.items if name[0] == "s"]
    with Recommender.open(path) as rec:
        history = history_of(data, data.interactions, 9)
        whole = rec.score(history, items)
        assert whole.tolist() == [rec.score(history, [item])[0] for item in items]
        assert whole[::-1].tolist() == rec.score(history, items[::-1]).tolist()
        found = rec.recommend(history, len(rec), exclude=None)
        assert found.scores.tolist() == rec.score(history, list(found.items)).tolist()


@pytest.mark.parametrize("tables", TABLES)
def test_what_is_served_is_counted_and_named(folder: Path, tables: str) -> None:
    mode, size = next((mode, size) for mode, size, kind in CASES if kind == tables)
    path, _ = exported(mode, size, tables, folder)
    model = model_of(mode, size, tables)
    arrays = stored_arrays(model)
    for name, array in arrays.items():
        np.testing.assert_array_equal(np.load(path / f"{name}.npy"), array)
    graphs = [part for part in (model.net.encoder, model.net.tower) if part is not None]
    weights = sum(parameter.numel() * 4 for part in graphs for parameter in part.parameters())
    assert served_bytes(model) == sum(array.nbytes for array in arrays.values()) + weights
    named = json.loads((path / "manifest.json").read_text("utf-8"))["tables"]
    assert named == (tables if tables in ("int8", "float32") else vars(storage(model)))


def test_a_model_folder_of_six_bits_is_still_exported(tmp_path: Path) -> None:
    model_of("finetune", "fast", "int6").save(tmp_path / "model")
    export_bundle(EdgeModel.load(tmp_path / "model"), synthetic.dataset(), tmp_path / "b")
    assert set(vars(Bundle.open(tmp_path / "b", verify="full").shape.tables).values()) == {
        "int6",
        "float32",
    }


@pytest.mark.parametrize("tables", ["int6", "mixed"])
def test_weights_of_parts_may_change_after_quantization(tmp_path: Path, tables: str) -> None:
    model = model_of("finetune", "fast", tables)
    mix = replace(model.score_weights, two_tower=0.7, wide=2.5, residual=1.5, interest=0.3)
    parity = export_bundle(replace(model, score_weights=mix), synthetic.dataset(), tmp_path / "b")
    assert parity.max_error <= 1e-4


@pytest.mark.parametrize("size", ["fast", "base"])
def test_the_encoder_graph_has_a_free_batch_and_no_table(size: str) -> None:
    model = synthetic.model("finetune", size)
    blob = encoder_graph(model)
    proto = onnx.load_from_string(blob)
    assert (proto.ir_version, proto.opset_import[0].version) == (IR_VERSION, OPSET) == (9, 18)
    inputs = {
        node.name: [d.dim_value or None for d in node.type.tensor_type.shape.dim]
        for node in proto.graph.input
    }
    d, length = model.net.config.width, model.net.config.history
    assert inputs == {"history": [None, length, d], "log_weight": [None, length]}
    floats = [
        tensor for tensor in proto.graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT
    ]
    weights = sum(int(np.prod(tensor.dims)) for tensor in floats)
    assert weights <= sum(parameter.numel() for parameter in model.net.encoder.parameters()) + 64
    assert all(len(model.ids) not in tensor.dims for tensor in proto.graph.initializer)
    assert not [name for name in ("/work", "/root", ".venv", ".py") if name.encode() in blob]
    session = onnxruntime.InferenceSession(blob, providers=["CPUExecutionProvider"])
    torch.manual_seed(0)
    for batch in (1, 2, 7):
        history, log_weight = torch.randn(batch, length, d), torch.randn(batch, length)
        log_weight[:, : length // 2] = PAD
        found = session.run(
            ["user"], {"history": history.numpy(), "log_weight": log_weight.numpy()}
        )[0]
        np.testing.assert_allclose(found, model.net.encoder(history, log_weight).numpy(), atol=2e-5)


def test_the_item_tower_gives_the_content_vectors(folder: Path) -> None:
    model = synthetic.model()
    blob = item_tower_graph(model)
    assert blob is not None
    session = onnxruntime.InferenceSession(blob, providers=["CPUExecutionProvider"])
    net = model.net
    for rows in (slice(0, 1), slice(0, 50)):
        given = {
            "text": net.text[rows],
            "numeric": net.numeric[rows],
            "categories": net.categories[rows],
        }
        history, candidate = session.run(
            ["history", "candidate"], {k: v.numpy() for k, v in given.items()}
        )
        assert net.tower is not None
        wanted = net.tower(*given.values())
        np.testing.assert_allclose(history, wanted[0].numpy(), atol=1e-5)
        np.testing.assert_allclose(
            candidate, wanted[1].numpy() * model.score_weights.two_tower, atol=1e-5
        )  # as it is scored


@pytest.mark.parametrize("tables", ["int8", "mixed"])
def test_an_item_added_later_scores_like_its_like(folder: Path, tables: str) -> None:
    path, _ = exported("finetune", "fast", tables, folder)
    data = synthetic.dataset()
    like = {
        taste: {"title": f"{taste} no 90 for home", "category": taste} for taste in synthetic.TASTES
    }
    with Recommender.open(path) as rec:
        rec.add_items({f"new {taste}": features for taste, features in like.items()})
        assert len(rec) == synthetic.SMALL + 4
        wins = []
        for user in range(40):
            scores = rec.score(
                history_of(data, data.interactions, user), [f"new {taste}" for taste in like]
            )
            taste = int(data.users[user][1:]) % len(synthetic.TASTES)
            wins.append(int(scores.argmax()) == taste)
    assert np.mean(wins) > 0.75


@pytest.mark.parametrize("tables", ["int8", "mixed"])
def test_stored_users_score_as_their_histories(folder: Path, tables: str) -> None:
    path, _ = exported("finetune", "fast", tables, folder)
    data = synthetic.dataset()
    task = make_tasks(data, ("small",)).final
    names = [data.items[row] for row in task.candidates]
    with Recommender.open(path, deterministic=False) as rec:
        for user in (0, 3, 100):
            assert rec.has_user(data.users[user])
            stored = rec.score(rec.user_state(data.users[user]), names)
            np.testing.assert_allclose(
                stored, rec.score(history_of(data, task.history, user), names), atol=1e-4
            )
        assert not rec.has_user("stranger")


def test_user_ids_are_hashed_unless_asked(tmp_path: Path) -> None:
    data = synthetic.dataset()
    strange = replace(data, users=tuple(f"secret-{name}" for name in data.users))
    model = synthetic.model()
    export_bundle(model, strange, tmp_path / "b", ExportConfig("hashed"))
    with Recommender.open(tmp_path / "b") as rec:
        assert rec.has_user("secret-u7")
        assert rec.manifest["user_ids"] == "hashed"
    export_bundle(model, strange, tmp_path / "b")
    for file in (tmp_path / "b").iterdir():
        assert b"secret-" not in file.read_bytes()
    with Recommender.open(tmp_path / "b") as rec:
        assert not rec.has_user("secret-u7")


def test_only_the_target_s_users_are_stored_unless_all_are_asked_for(tmp_path: Path) -> None:
    data, model = synthetic.dataset(), synthetic.model()
    log, split = data.interactions, data.split
    is_new = np.isin(log.domain, make_tasks(data, ("small",)).final.target) & (log.user < 20)
    data = replace(
        data, interactions=log.select(~is_new), split=replace(split, role=split.role[~is_new])
    )
    task = make_tasks(data, ("small",)).final
    users = {data.users[row] for row in task.history.user}
    of_target = {data.users[row] for row in task.history.user[task.in_target(task.history)]}
    assert of_target < users
    for all_users, wanted in ((False, of_target), (True, users)):
        config = ExportConfig("plain", all_users=all_users)
        export_bundle(model, data, tmp_path / "b", config)
        with Recommender.open(tmp_path / "b") as rec:
            assert {user for user in data.users if rec.has_user(user)} == wanted
    with pytest.raises(ValueError, match="all_users needs with_users"):
        ExportConfig(all_users=True)


def test_the_bundle_ranks_like_the_model(folder: Path) -> None:
    path, _ = exported("finetune", "fast", "int8", folder)
    data = synthetic.dataset()
    model = model_of("finetune", "fast", "float32").with_provenance()
    bundle_ranker = open_compared_model(path, data).ranker(data)
    entries = {"model": model_ranker(model, data), "bundle": bundle_ranker}
    result = evaluate(data, ("small",), entries)
    assert result.values("bundle").mean() == pytest.approx(result.values("model").mean(), abs=0.01)


def test_the_manifest_carries_its_cards(tmp_path: Path) -> None:
    data, model = synthetic.dataset(), model_of("finetune", "fast", "int8")
    cards = measure_cards(model, data)
    parity = export_bundle(model, data, tmp_path / "b", None, cards)
    manifest = json.loads((tmp_path / "b" / "manifest.json").read_text("utf-8"))
    assert manifest["transfer"]["claim"] == "transfer"
    assert manifest["transfer"]["low"] > 0
    names = [row["name"] for row in manifest["quality"]["rows"]]
    assert {"popularity", "itemcf", "ease", "target-only", "model"} <= set(names)
    assert manifest["parity"]["max_error"] == parity.max_error
    assert manifest["provenance"]["source_domains"] == ["big"]
    assert (manifest["opset"], manifest["ir"]) == (OPSET, IR_VERSION)
    assert "NaN" not in (tmp_path / "b" / "manifest.json").read_text("utf-8")
    scratch = measure_cards(synthetic.model("scratch"), data)
    assert scratch["transfer"]["claim"] == "none"


def wrong_graph(model: EdgeModel) -> bytes:
    net = synthetic.model("finetune", "fast").net
    state = {name: value.clone() for name, value in net.encoder.state_dict().items()}
    try:
        with torch.no_grad():
            fast_encoder(net).skip.weight.mul_(1.05)
        graph: bytes = encoder_graph(model)
        return graph
    finally:
        net.encoder.load_state_dict(state)


def test_the_gate_refuses_a_wrong_graph_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(items_module, "encoder_graph", wrong_graph)
    with pytest.raises(ExportError, match="parity gate: the bundle's scores differ"):
        export_bundle(synthetic.model(), synthetic.dataset(), tmp_path / "deep" / "b")
    assert not list(tmp_path.rglob("*.onnx"))
    assert not list((tmp_path / "deep").iterdir()) if (tmp_path / "deep").exists() else True


def test_the_gate_refuses_scores_that_are_no_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nan = float("nan")
    monkeypatch.setattr(
        export_module, "measure_parity", lambda *_: Parity(1, nan, 1.0, None, None, None)
    )
    with pytest.raises(ExportError, match="parity gate"):
        export_bundle(synthetic.model(), synthetic.dataset(), tmp_path / "b")
    assert not list(tmp_path.iterdir())


def test_a_refused_export_keeps_the_older_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, model = synthetic.dataset(), synthetic.model()
    export_bundle(model, data, tmp_path / "b")
    before = (tmp_path / "b" / "manifest.json").read_bytes()
    monkeypatch.setattr(items_module, "encoder_graph", wrong_graph)
    with pytest.raises(ExportError):
        export_bundle(model, data, tmp_path / "b")
    assert (tmp_path / "b" / "manifest.json").read_bytes() == before
    Recommender.open(tmp_path / "b", verify="full").close()
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_another_folder_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    for path in (tmp_path, tmp_path / "notes.txt", tmp_path / "notes.txt" / "b"):
        with pytest.raises(TlrecError):
            export_bundle(synthetic.model(), synthetic.dataset(), path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    with pytest.raises(ValueError, match="with_users must be None, 'hashed' or 'plain'"):
        ExportConfig("all")


def test_ids_alone_are_exported_without_an_item_tower(tmp_path: Path) -> None:
    data = synthetic.ids_only()
    model = adapt(data, ("all",), "scratch", None, replace(synthetic.CONFIG, epochs=3))
    export_bundle(model, data, tmp_path / "b")
    with Recommender.open(tmp_path / "b", verify="full") as rec:
        assert len(rec.recommend(["b0", "b4"], 5).items) == 5
        with pytest.raises(BundleError, match="its model learned from ids only"):
            rec.add_items({"x": {"title": "x"}})


def test_strange_pasts_are_served_as_the_model_scores_them(folder: Path) -> None:
    """Long, repeated and unknown histories, and none."""
    path, _ = exported("finetune", "fast", "int8", folder)
    data, model = synthetic.dataset(), model_of("finetune", "fast", "int8")
    task = make_tasks(data, ("small",)).final
    rng = np.random.default_rng(0)
    with Recommender.open(path, deterministic=False) as rec:
        for count in (1, 49, 50, 51, 300):
            item = rng.integers(0, len(data.items), count).astype(np.int32)
            n = np.zeros(count, np.int32)
            log = replace(
                task.history,
                user=n,
                item=item,
                domain=n,
                event=n + 3,
                weight=np.ones(count, np.float32),
                time=np.sort(rng.integers(1, 10**9, count)),
                position=np.arange(count, dtype=np.int32),
            )
            wanted = model.scorer(data, replace(task, history=log))(np.array([0], np.int32))[0]
            found = rec.score(
                history_of(data, log, 0), [data.items[row] for row in task.candidates]
            )
            np.testing.assert_allclose(found, wanted, atol=1e-4)
        assert rec.score(["who", "knows"], ["s0"]).tolist() == rec.score([], ["s0"]).tolist()
        assert rec.score(History([]), ["s0"])[0] == pytest.approx(
            model.score_weights.bias * model.bias[model.ids.index("s0")]
        )


def test_the_past_of_the_export_is_the_models() -> None:
    data, model = synthetic.dataset(), synthetic.model()
    task = make_tasks(data, ("small",)).final
    histories = UserHistories.of(task.history, model.rows(data), len(data.users), len(model.ids))
    assert histories.matrix.shape == (len(data.users), len(model.ids))
    assert set(np.unique(histories.matrix.data)) == {1.0}
