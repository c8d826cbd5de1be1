"""Text vectors of a pretrained encoder: every stage uses them, the runtime loads no encoder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from helpers import bundles, synthetic
from helpers.bundles import replace_array
from helpers.commands import ok, refused
from tlrec_edge import Recommender
from tlrec_edge.core.features import FeatureEncoder, TextSource
from tlrec_edge.data.store import load_dataset
from tlrec_edge.errors import BundleError, DataError, MissingExtraError, ModelError
from tlrec_edge.evaluation.compared import open_compared_model
from tlrec_edge.train import EdgeModel, adapt, pretrain, text
from tlrec_edge.train.item_features import encode_features, fit_features
from tlrec_edge.train.text import open_encoder

export = pytest.importorskip("tlrec_edge.export")
quantize_tables = pytest.importorskip("tlrec_edge.quantize").quantize_tables


class Letters:
    """Counts letters: a text without any gives 0."""

    name, width = "letters", 26

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return np.array(
            [[words.count(chr(97 + i)) for i in range(26)] for words in texts], np.float32
        ).reshape(-1, 26)


class Narrow(Letters):
    width = 25

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return super().encode(texts)[:, :25]


@pytest.fixture(scope="module", autouse=True)
def registered() -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(text.ENCODERS, "letters", Letters)
        yield


CONFIG = replace(synthetic.CONFIG, text="letters")
LIKE: dict[str | int, dict[str, str]] = {
    f"new {taste}": {"title": f"{taste} no 90 for home", "category": taste}
    for taste in synthetic.TASTES
}


@pytest.fixture(scope="module")
def source(registered: object) -> EdgeModel:
    return pretrain(synthetic.dataset(), ("big",), CONFIG)


@pytest.fixture(scope="module")
def model(source: EdgeModel) -> EdgeModel:
    return adapt(synthetic.dataset(), ("small",), "finetune", source)


@pytest.fixture(scope="module")
def bundle(model: EdgeModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "b"
    export.export_bundle(model, synthetic.dataset(), path)
    return path


def test_the_encoders_vectors_are_projected_and_of_length_one() -> None:
    data = synthetic.dataset()
    features = fit_features(data, "letters")
    assert features.text == TextSource("letters", 26)
    assert features.text_table.shape[0] == 26
    rows = np.array([3, 1, 3], np.int32)
    found = encode_features(data, features, rows, "letters").text
    raw = Letters().encode(
        features.texts({c: [v[r] for r in rows] for c, v in _texts(features).items()}, 3)
    )
    np.testing.assert_allclose(found, features.project(raw), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, atol=1e-5)
    assert not features.project(np.zeros((1, 26), np.float32)).any()


def _texts(features: FeatureEncoder) -> dict[str, Sequence[str]]:
    table = synthetic.dataset().features
    return {
        name: {**table.text, **table.categorical}[name]
        for name in (*features.text_columns, *features.vocabulary)
    }


def test_a_model_names_its_encoder_and_adapt_takes_it_over(
    source: EdgeModel, model: EdgeModel, tmp_path: Path
) -> None:
    assert source.features.text == model.features.text == TextSource("letters", 26)
    assert model.provenance.train.text == "letters"
    model.save(tmp_path / "m")
    again = EdgeModel.load(tmp_path / "m")
    assert again.features.text == TextSource("letters", 26)
    np.testing.assert_array_equal(again.features.text_table, model.features.text_table)
    assert source.features.schema()["text"] == {"encoder": "letters", "width": 26}
    assert "text" not in synthetic.source().features.schema()


def test_an_item_added_by_its_vector_scores_like_similar_items(bundle: Path) -> None:
    assert json.loads((bundle / "features.json").read_text("utf-8"))["text"] == {
        "encoder": "letters",
        "width": 26,
    }
    data = synthetic.dataset()
    with Recommender.open(bundle, verify="full") as rec:
        texts = rec.item_texts(LIKE)
        assert texts[0] == "tea no 90 for home tea"
        rec.add_items(LIKE, text_vectors=Letters().encode(texts))
        wins = []
        for user in range(40):
            seen = [data.items[i] for i in data.interactions.item[data.interactions.user == user]]
            best = synthetic.TASTES[int(rec.score(seen, list(LIKE)).argmax())]
            wins.append(best == _taste(data.users[user]))
    assert np.mean(wins) > 0.75


def _taste(user: str) -> str:
    return synthetic.TASTES[int(user[1:]) % len(synthetic.TASTES)]


def test_an_added_item_has_the_vectors_of_the_model(model: EdgeModel, bundle: Path) -> None:
    data = synthetic.dataset()
    row = data.item_row["s1"]
    columns: dict[str, str | float] = {
        name: values[row]
        for name, values in {**data.features.text, **data.features.categorical}.items()
    }
    columns["price"] = float(data.features.numeric["price"][row])
    net = model.net
    place = model.ids.index("s1")
    assert net.tower is not None
    content = net.text[[place]], net.numeric[[place]], net.categories[[place]]
    expected = net.tower(*content)[0].numpy()
    with Recommender.open(bundle, deterministic=False) as rec:
        rec.add_items(
            {"twin": columns}, open_encoder("letters").encode(rec.item_texts({"twin": columns}))
        )
        found = rec._open().catalogue.vectors.read(np.array([len(model.ids)]))
    np.testing.assert_allclose(found, expected, atol=2e-3 * np.abs(expected).max())


def test_without_vectors_items_with_text_are_refused_and_those_without_added(bundle: Path) -> None:
    with Recommender.open(bundle) as rec:
        with pytest.raises(
            DataError, match=r"text_vectors.*'letters'.*\(1, 26\).*open_encoder\('letters'\)"
        ):
            rec.add_items({"x": {"title": "tea"}})
        with pytest.raises(
            DataError, match=r"shape \(1, 16\); expected finite values of shape \(1, 26\)"
        ):
            rec.add_items({"x": {"title": "tea"}}, np.zeros((1, 16), np.float32))
        rec.add_items({"x": {"price": 3.0}})
        assert np.isfinite(rec.score(["b1"], ["x"])).all()


@pytest.mark.parametrize("exact", [True, False])
def test_a_new_item_scores_as_those_with_the_nearest_texts(
    model: EdgeModel, tmp_path: Path, exact: bool
) -> None:
    bundle = tmp_path / "b"
    export.export_bundle(quantize_tables(model) if exact else model, synthetic.dataset(), bundle)
    texts = model.net.text[: model.candidates].numpy().astype(np.float16).astype(np.float32)
    vector = model.features.project(Letters().encode(["wool no 90 for home wool"]))[0]
    cosine = texts @ vector / np.linalg.norm(texts, axis=1)
    near = np.argsort(-cosine, kind="stable")[:20]
    weight = np.exp(5 * cosine[near]) / np.exp(5 * cosine[near]).sum()
    with Recommender.open(bundle, deterministic=exact) as rec:
        assert rec.deterministic == exact
        rec.add_items(LIKE, Letters().encode(rec.item_texts(LIKE)))
        rec.add_items({"bare": {"price": 3.0}})
        state = rec.user_state(["b1", "b5", "s2"])
        known = rec.score(state, list(model.ids[: model.candidates]))
        bias = np.load(bundle / "candidate_bias.npy")
        expected = float((known - bias)[near] @ weight + bias.mean())
        assert rec.score(state, ["new wool"])[0] == pytest.approx(expected, abs=1e-4)
        every = dict(zip(*rec.recommend(state, 100, exclude=None)[:2], strict=True))
        requested = ["s3", "bare", "new iron", "new wool", "new wool"]
        together = rec.score(state, requested)
        if exact:
            assert (
                together.tobytes()
                == np.array([every[item] for item in requested], np.float32).tobytes()
            )
            assert (
                together.tobytes()
                == np.concatenate([rec.score(state, [item]) for item in requested]).tobytes()
            )
        else:
            np.testing.assert_allclose(together, [every[item] for item in requested], atol=1e-5)


def test_a_bundle_without_the_candidates_texts_adds_items_by_the_tower(
    bundle: Path, tmp_path: Path
) -> None:
    bundles.build(tmp_path / "b")
    with Recommender.open(tmp_path / "b") as rec:
        rec.add_items({"x": {"title": "red mug"}, "y": {"title": "garden"}})
        assert len(set(rec.score(["i1", "i2"], ["x", "y"]).tolist())) == 2


def test_text_vectors_of_another_width_are_damage(bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(bundle, tmp_path / "b")
    replace_array(
        tmp_path / "b", "candidate_text.npy", np.load(bundle / "candidate_text.npy")[:, :3].copy()
    )
    with pytest.raises(BundleError, match=r"candidate_text\.npy is not as wide as text_table\.npy"):
        Recommender.open(tmp_path / "b")


def test_a_hashed_bundle_returns_the_texts_it_reads(tmp_path: Path) -> None:
    bundles.build(tmp_path / "b")
    with Recommender.open(tmp_path / "b") as rec:
        assert rec.item_texts(
            {1: {"title": "mug", "colour": "red", "price": 2}, 2: {"price": 1}}
        ) == ["mug red", ""]


@pytest.mark.parametrize(
    "text", [{"encoder": "x"}, {"encoder": "", "width": 64}, {"encoder": "x", "width": 63}, ["x"]]
)
def test_a_wrong_text_entry_is_no_feature_schema(tmp_path: Path, text: object) -> None:
    schema = bundles.encoder_features(np.random.default_rng(0)).schema()
    table = np.zeros((64, 3), np.float32)
    assert (
        FeatureEncoder.from_schema(schema | {"text": {"encoder": "x", "width": 64}}, table).text
        is not None
    )
    with pytest.raises((ValueError, KeyError, TypeError, AttributeError)):
        FeatureEncoder.from_schema(schema | {"text": text}, table)


def test_another_encoder_than_the_sources_is_refused(
    source: EdgeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = synthetic.dataset()
    with pytest.raises(ModelError, match=r"encodes texts with 'letters'.*not with 'hashed'"):
        adapt(data, ("small",), "finetune", source, replace(CONFIG, text="hashed"))
    with pytest.raises(ModelError, match=r"encodes texts with 'hashed'.*not with 'letters'"):
        adapt(data, ("small",), "zero-shot", synthetic.source(), CONFIG)
    monkeypatch.setitem(text.ENCODERS, "letters", Narrow)
    encode_features.__globals__["_encode_all"].cache_clear()
    with pytest.raises(ModelError, match=r"'letters' \(26 wide\).*'letters' \(25 wide\)"):
        adapt(data, ("small",), "finetune", source)
    encode_features.__globals__["_encode_all"].cache_clear()


def test_items_without_text_have_none_to_encode() -> None:
    with pytest.raises(DataError, match="letters: the items have no text"):
        adapt(synthetic.ids_only(), ("all",), "scratch", None, CONFIG)


def test_unknown_encoders_and_missing_packages_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        ModelError, match=r"'word2vec' is not a text encoder: use hashed, wordllama.* or a folder"
    ):
        open_encoder("word2vec")
    with pytest.raises(ModelError, match=r"onnx/model\.onnx"):
        open_encoder(str(tmp_path))
    monkeypatch.setitem(__import__("sys").modules, "wordllama", None)
    with pytest.raises(MissingExtraError, match=r"tlrec-edge\[text\]"):
        open_encoder("wordllama")


def test_the_command_line_trains_adapts_and_exports_with_an_encoder(tmp_path: Path) -> None:
    synthetic.interactions().to_csv(tmp_path / "log.csv", index=False)
    synthetic.items().to_csv(tmp_path / "items.csv", index=False)
    ds = tmp_path / "ds"
    ok(
        "prepare",
        "--interactions",
        tmp_path / "log.csv",
        "--items",
        tmp_path / "items.csv",
        "--out",
        ds,
    )
    ok(
        "pretrain",
        ds,
        "--domains",
        "big",
        "--epochs",
        1,
        "--text",
        "letters",
        "--out",
        tmp_path / "s",
    )
    call = (
        "adapt",
        ds,
        "--domain",
        "small",
        "--from",
        tmp_path / "s",
        "--mode",
        "zero-shot",
        "--out",
        tmp_path / "m",
    )
    assert "encodes texts with 'letters'" in refused(*call, "--text", "hashed")
    ok(*call)
    ok("export", tmp_path / "m", ds, "--domain", "small", "--out", tmp_path / "b")
    assert Recommender.open(tmp_path / "b").manifest["features"]["text_encoder"] == "letters"
    assert open_compared_model(tmp_path / "b", load_dataset(ds)).provenance.train.text == "letters"
    words = refused(
        "pretrain", ds, "--domains", "big", "--text", "nowhere", "--out", tmp_path / "t"
    )
    assert "'nowhere' is not a text encoder" in words


def test_wordllama_reads_without_a_network() -> None:
    pytest.importorskip("wordllama")
    encoder = open_encoder("wordllama")
    found = encoder.encode(["red mug", "scarlet cup", "garden hose", ""])
    assert (encoder.name, encoder.width, found.shape, found.dtype) == (
        "wordllama",
        256,
        (4, 256),
        np.dtype(np.float32),
    )
    near = found @ found[0]
    assert near[1] > near[2]
    assert not found[3].any()
    assert encoder.encode([]).shape == (0, 256)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_a_folder_with_an_onnx_model_is_pooled_as_configured(tmp_path: Path, pooling: str) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    words = {"[PAD]": 0, "[UNK]": 1, "red": 2, "mug": 3}
    splitter = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, "[UNK]"))
    splitter.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    folder = tmp_path / "tiny"
    (folder / "onnx").mkdir(parents=True)
    splitter.save(str(folder / "tokenizer.json"))
    table = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "input_ids"], ["last_hidden_state"])],
        "tiny",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["n", "l"])],
        [helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, ["n", "l", 5])],
        [numpy_helper.from_array(table, "table")],
    )
    opset = [helper.make_opsetid("", 18)]
    (folder / "onnx" / "model.onnx").write_bytes(
        helper.make_model(graph, opset_imports=opset, ir_version=9).SerializeToString()
    )
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(
        json.dumps({"pooling_mode_cls_token": pooling == "cls"})
    )
    encoder = open_encoder(str(folder))
    assert (encoder.name, encoder.width) == ("tiny", 5)
    expected = np.stack([table[2], table[2] if pooling == "cls" else (table[2] + table[3]) / 2])
    np.testing.assert_allclose(encoder.encode(["red", "red mug"]), expected, atol=1e-6)
    np.testing.assert_allclose(encoder.encode(["red mug"] * 150)[-1], expected[1], atol=1e-6)
    assert encoder.encode([]).shape == (0, 5)
