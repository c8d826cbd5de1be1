"""Transfer modes: what each trains and reads, and that transfer improves the target."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from helpers import synthetic
from helpers.synthetic import CONFIG
from tlrec_edge.data.dataset import TEST, Dataset
from tlrec_edge.data.prepare import SplitPlan, prepare_tables
from tlrec_edge.data.task import make_tasks
from tlrec_edge.errors import DataError, ModelError, TrainingError
from tlrec_edge.evaluation import evaluate
from tlrec_edge.evaluation.cards import measure_cards, transfer_card
from tlrec_edge.evaluation.evaluate import baseline_rankers, model_ranker
from tlrec_edge.evaluation.noise import shuffle_domains
from tlrec_edge.evaluation.result import BASELINES, TARGET_ONLY, pool
from tlrec_edge.train import MODES, EdgeModel, adapt, adapt_auto, modes, pretrain
from tlrec_edge.train.auto import COMPLEXITY_ORDER, TRANSFER, TRANSFER_MEAN
from tlrec_edge.train.fit_mode import fit_mode
from tlrec_edge.train.score_weights import cross_fitted_ndcg, tune_score_weights
from tlrec_edge.train.setup import Context

QUICK = replace(CONFIG, epochs=2)
OWN = {"history_id.weight", "candidate_id.weight", "bias"}


def state(model: EdgeModel) -> Mapping[str, torch.Tensor]:
    return model.net.state_dict()


def vector(model: EdgeModel, side: str, item: str) -> np.ndarray:
    found: np.ndarray = getattr(model, f"{side}_vectors")[model.ids.index(item)]
    return found


def scores(model: EdgeModel, data: Dataset | None = None) -> np.ndarray:
    data = data or synthetic.dataset()
    task = make_tasks(data, ("small",)).final
    return np.asarray(model.scorer(data, task)(np.unique(task.rows.user)))


@pytest.mark.parametrize("size", ["fast", "base"])
@pytest.mark.parametrize("mode", MODES)
def test_every_mode_gives_a_model_of_the_target(mode: str, size: str) -> None:
    data = synthetic.dataset()
    config = replace(QUICK, size=size, pretrain_epochs=1)
    model = adapt(
        data, ("small",), mode, None if mode == "scratch" else synthetic.source(size), config
    )
    assert np.isfinite(scores(model)).all()
    made = model.provenance
    assert (made.kind, made.mode, made.domains) == ("target", mode, ("small",))
    assert made.source == (None if mode == "scratch" else ("big",))
    assert model.candidates == synthetic.SMALL
    model.check_split(data)


@pytest.mark.parametrize("mode", ["scratch", "finetune", "frozen"])
def test_the_same_seed_gives_the_same_model(mode: str) -> None:
    start = None if mode == "scratch" else synthetic.source()
    found = [
        adapt(synthetic.dataset(), ("small",), mode, start, replace(QUICK, seed=seed))
        for seed in (1, 1, 2)
    ]
    np.testing.assert_array_equal(scores(found[0]), scores(found[1]))
    assert np.abs(scores(found[0]) - scores(found[2])).max() > 0


def test_zero_shot_trains_nothing() -> None:
    source, model = state(synthetic.source()), state(synthetic.model("zero-shot"))
    for name in set(source) - OWN:
        torch.testing.assert_close(model[name], source[name], rtol=0, atol=0)
    assert not model[
        "candidate_id.weight"
    ].any()  # none of the target's items is sold in the source


def test_zero_shot_uses_no_interaction_of_the_target() -> None:
    data = synthetic.dataset()
    sold = np.unique(data.interactions.item[data.interactions.domain == 1])
    shuffled = synthetic.shuffled(lambda item: sold[(np.searchsorted(sold, item) + 7) % len(sold)])
    one, other = (
        synthetic.model("zero-shot"),
        adapt(shuffled, ("small",), "zero-shot", synthetic.source()),
    )
    both = [name for name in one.ids[: one.candidates] if name in other.ids[: other.candidates]]
    assert len(both) > synthetic.SMALL - 3
    for name in both:
        np.testing.assert_array_equal(
            vector(one, "candidate", name), vector(other, "candidate", name)
        )
        np.testing.assert_array_equal(vector(one, "history", name), vector(other, "history", name))
    assert {
        name: one.net.bias[i].item() for i, name in enumerate(one.ids[: one.candidates])
    }.items() >= {(name, other.net.bias[other.ids.index(name)].item()) for name in both}


def test_frozen_leaves_the_towers_alone() -> None:
    data = synthetic.no_validation()
    source = synthetic.source_of(data)
    model = adapt(data, ("small",), "frozen", source, QUICK)
    for name in set(state(source)) - OWN:
        torch.testing.assert_close(state(model)[name], state(source)[name], rtol=0, atol=0)
    assert state(model)["candidate_id.weight"].any()
    for item in ("b0", "b7"):
        np.testing.assert_allclose(
            vector(model, "history", item), vector(source, "history", item), atol=1e-6
        )


def test_finetune_starts_at_the_source_and_moves_everything() -> None:
    data = synthetic.no_validation()
    source = synthetic.source_of(data)
    start, moved = (
        adapt(data, ("small",), "finetune", source, replace(CONFIG, epochs=n)) for n in (0, 2)
    )
    for name in set(state(source)) - OWN:
        torch.testing.assert_close(state(start)[name], state(source)[name], rtol=0, atol=0)
    np.testing.assert_allclose(
        vector(start, "history", "b3"), vector(source, "history", "b3"), atol=1e-6
    )
    for name in ("encoder.feed_forward.up.weight", "tower.hidden.weight", "candidate_id.weight"):
        assert not torch.equal(state(moved)[name], state(start)[name])


def test_joint_training_records_its_source_domains() -> None:
    model = adapt(synthetic.dataset(), ("small",), "joint", None, replace(QUICK, pretrain_epochs=1))
    assert model.provenance.source == ("big",)


def test_a_source_model_is_not_changed_by_adapting() -> None:
    source = synthetic.source()
    before = {name: value.clone() for name, value in state(source).items()}
    for mode in ("finetune", "frozen"):
        adapt(synthetic.dataset(), ("small",), mode, source, QUICK)
    for name, value in before.items():
        torch.testing.assert_close(state(source)[name], value, rtol=0, atol=0)


def test_pretraining_sees_no_test_row() -> None:
    data = synthetic.dataset()
    log = data.interactions
    rng = np.random.default_rng(0)
    test = data.split.role == TEST
    item = np.where(
        test & (log.domain == 0), rng.integers(0, synthetic.BIG, len(log)), log.item
    ).astype(np.int32)
    other = pretrain(replace(data, interactions=replace(log, item=item)), ("big",), CONFIG)
    for name, value in state(synthetic.source()).items():
        torch.testing.assert_close(state(other)[name], value, rtol=0, atol=0)


def test_numbers_that_are_not_finite_do_not_spoil_the_loss() -> None:
    data = synthetic.dataset()
    price = data.features.numeric["price"]
    numeric = {}
    for bad in (float("nan"), float("inf"), float("-inf"), 3e38):
        numeric[f"{bad} in places"] = price.copy()
        numeric[f"{bad} in places"][::5] = bad
        numeric[f"{bad} everywhere"] = np.full_like(price, bad)
    strange = replace(data, features=replace(data.features, numeric=numeric))
    source = pretrain(strange, ("big",), replace(CONFIG, pretrain_epochs=1))
    for mode in ("scratch", "finetune", "zero-shot"):
        model = adapt(strange, ("small",), mode, None if mode == "scratch" else source, QUICK)
        assert np.isfinite(scores(model, strange)).all()


def test_a_loss_that_is_not_finite_is_an_error() -> None:
    with pytest.raises(TrainingError, match=r"loss is nan: lower the learning rate \(now 1e\+30\)"):
        adapt(synthetic.dataset(), ("small",), "scratch", None, replace(QUICK, rate=1e30, epochs=9))


def test_a_dataset_of_one_interaction_does_not_crash() -> None:
    """One user with one item: adapt gives a model of popularity, pretrain refuses."""
    data = prepare_tables(
        [synthetic.interactions()[["user", "item"]].head(1)], [], None, SplitPlan()
    ).dataset
    model = adapt(data, ("all",), "scratch", None, QUICK)
    assert model.candidates == 1
    with pytest.raises(TrainingError, match="no training example"):
        pretrain(data, ("all",), QUICK)


def test_wrong_calls_are_refused_with_a_remedy() -> None:
    data = synthetic.dataset()
    with pytest.raises(ModelError, match="unknown mode 'magic'; known: auto, scratch"):
        adapt(data, ("small",), "magic")
    for mode in ("zero-shot", "frozen", "finetune"):
        with pytest.raises(ModelError, match="give one with --from"):
            adapt(data, ("small",), mode)
    with pytest.raises(DataError, match="unknown domain 'tiny'; known: big, small"):
        adapt(data, ("tiny",), "scratch")


def test_a_source_that_may_have_seen_test_rows_is_refused() -> None:
    data = synthetic.dataset("last-basket")
    both = pretrain(data, ("big", "small"), replace(QUICK, pretrain_epochs=1))
    for start, words in (
        (synthetic.source(), "under another split"),
        (both, "already trained on small"),
    ):
        with pytest.raises(ModelError, match=words):
            adapt(data, ("small",), "finetune", start, QUICK)
        with pytest.raises(ModelError, match=words):
            adapt_auto(data, ("small",), start, QUICK)


@pytest.fixture(scope="module")
def evaluation() -> Any:
    data = synthetic.dataset()
    entries = baseline_rankers(CONFIG, data)
    for mode in MODES:
        entries[mode] = model_ranker(synthetic.model(mode), data)
    return evaluate(data, ("small",), entries)


def test_transfer_pays_on_the_synthetic_dataset(evaluation: Any) -> None:
    reached = {name: float(evaluation.values(name).mean()) for name in evaluation.rankings}
    assert evaluation.lift("finetune", "scratch").low > 0.05
    assert evaluation.lift("zero-shot", "popularity").low > 0.05
    assert evaluation.lift("finetune", "zero-shot").low > 0
    assert reached["scratch"] == pytest.approx(reached["target-only"])
    assert reached["scratch"] > reached["popularity"] + 0.05
    assert min(reached["frozen"], reached["joint"]) > reached["scratch"] + 0.05


def test_the_report_has_the_shape_that_readers_expect(evaluation: Any) -> None:
    report = evaluation.to_json((5, 10), "finetune")
    assert (report["domain"], report["users"], report["tests"]) == ("small", 240, 240)
    names = [row["name"] for row in report["rows"]]
    assert names[:3] == ["popularity", "itemcf-target", "itemcf"]
    assert set(BASELINES) <= set(names)
    assert all(
        0 <= row[f"{metric}@5"] <= row[f"{metric}@10"] <= 1
        for row in report["rows"]
        for metric in ("ndcg", "hr")
    )
    assert report["lift"]["transfer"]["verdict"] == "better"
    assert report["lift"]["transfer"]["over"] in TARGET_ONLY
    assert report["lift"]["transfer"]["over"] == evaluation.best_target_only()


def test_a_claim_needs_a_source_and_a_significant_lift(evaluation: Any) -> None:
    assert transfer_card(evaluation, "finetune", ["big"], "finetune")["claim"] == "transfer"
    assert transfer_card(evaluation, "scratch", None, "scratch")["claim"] == "none"
    card = transfer_card(evaluation, "finetune", ["big"], "popularity")
    assert card["claim"] == "none"
    assert "worse" in card["why"]


def test_folds_are_pooled_by_row() -> None:
    data = synthetic.dataset("new-users")
    parts = [
        evaluate(data, ("small",), baseline_rankers(None, data), fold)
        for fold in range(data.split.folds)
    ]
    pooled = pool(parts)
    assert pooled.tests == sum(part.tests for part in parts)
    mean = np.average(
        [part.values("ease").mean() for part in parts], weights=[part.tests for part in parts]
    )
    assert pooled.values("ease").mean() == pytest.approx(mean)


def test_new_users_gain_from_their_history_in_other_domains() -> None:
    data = synthetic.dataset("new-users")
    model = adapt(data, ("small",), "finetune", synthetic.source_of(data), CONFIG, fold=1)
    result = evaluate(
        data, ("small",), {**baseline_rankers(None, data), "model": model_ranker(model, data)}, 1
    )
    assert result.lift("model", "popularity").low > 0.05
    assert model.provenance.fold == 1


def test_a_split_without_test_rows_is_refused() -> None:
    data = synthetic.dataset()
    none = replace(data, split=replace(data.split, role=np.zeros_like(data.split.role)))
    with pytest.raises(
        DataError, match="leaves no test rows in small: prepare with another --split"
    ):
        evaluate(none, ("small",), baseline_rankers(None, none))


def test_auto_chooses_the_winner() -> None:
    model, table = adapt_auto(synthetic.dataset(), ("small",), synthetic.source(), CONFIG)
    assert [line.mode for line in table] == [*COMPLEXITY_ORDER, TRANSFER_MEAN]
    assert [line.mode for line in table if line.chosen] == [model.provenance.mode]
    best = next(line for line in table if line.chosen)
    assert best.mode in ("frozen", "finetune", "joint")
    assert best.ndcg > 0.1 + max(line.ndcg for line in table if line.mode in COMPLEXITY_ORDER[:3])
    assert table[-1].lift > 2 * table[-1].se
    assert (
        {line.over for line in table if line.mode in TRANSFER}
        == {table[-1].over}
        < set(COMPLEXITY_ORDER) - TRANSFER
    )
    assert model.provenance.auto[0].mode == "popularity"


def test_auto_refuses_a_source_that_is_noise() -> None:
    data = shuffle_domains(synthetic.dataset(), ("big",), 1)
    config = replace(CONFIG, pretrain_epochs=3)
    model, table = adapt_auto(data, ("small",), pretrain(data, ("big",), config), config)
    chosen = next(line.mode for line in table if line.chosen)
    assert chosen in COMPLEXITY_ORDER[:3]
    assert model.provenance.source is None
    cards = measure_cards(model, data)
    assert cards["transfer"]["claim"] == "none"
    assert "on the target only" in cards["transfer"]["why"]
    assert len(cards["quality"]["rows"]) >= 5


def test_auto_without_a_source_still_chooses() -> None:
    model, table = adapt_auto(synthetic.dataset(), ("small",), None, QUICK)
    assert [line.mode for line in table] == list(COMPLEXITY_ORDER[:3])
    assert model.provenance.source is None


def test_auto_without_validation_rows_is_refused() -> None:
    none = synthetic.no_validation()
    with pytest.raises(DataError, match="this split leaves none: name a mode"):
        adapt_auto(none, ("small",), synthetic.source_of(none), QUICK)
    model = adapt(none, ("small",), "finetune", synthetic.source_of(none), QUICK)
    assert np.isfinite(scores(model, none)).all()


def test_a_new_mode_is_one_entry_of_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(modes.MODES, "mine", modes.zero_shot)
    model = adapt(synthetic.dataset(), ("small",), "mine", synthetic.source(), QUICK)
    assert model.provenance.mode == "mine"


@pytest.mark.parametrize(
    ("before", "without", "part"),
    [
        ((), "deep", "two_tower"),
        (("deep",), "wide", "wide"),
        (("deep", "wide"), "counts", "interest"),
    ],
)
def test_a_part_left_out_has_no_weight(before: tuple[str, ...], without: str, part: str) -> None:
    data = synthetic.dataset()
    more, less = (
        adapt(data, ("small",), "finetune", synthetic.source(), replace(QUICK, without=left))
        for left in (before, (*before, without))
    )
    assert getattr(more.score_weights, part) > 0
    assert getattr(less.score_weights, part) == 0
    assert less.provenance.train.without == (*before, without)


def test_without_content_or_without_ids() -> None:
    data, start = synthetic.dataset(), synthetic.source()
    bare = adapt(data, ("small",), "finetune", start, replace(QUICK, without=("content",)))
    assert bare.net.tower is None
    plain = adapt(data, ("small",), "finetune", start, replace(QUICK, without=("ids",)))
    same_taste = [
        i
        for i, name in enumerate(plain.ids[: plain.candidates])
        if name in ("s40", "s41", "s42", "s43")
    ]
    assert plain.net.tower is not None
    with torch.no_grad():
        rows = torch.tensor(same_taste)
        content = plain.net.tower(
            plain.net.text[rows], plain.net.numeric[rows], plain.net.categories[rows]
        )[1]
    np.testing.assert_allclose(plain.candidate_vectors[same_taste], content.numpy(), atol=1e-6)
    with pytest.raises(ModelError, match="leave one of them in"):
        adapt(data, ("small",), "finetune", start, replace(QUICK, without=("ids", "content")))
    with pytest.raises(ValueError, match="without must be among"):
        replace(QUICK, without=("wheels",))


def test_auto_judges_weights_on_users_they_were_not_tuned_on() -> None:
    data = shuffle_domains(synthetic.dataset(), ("big",), 1)
    tasks = make_tasks(data, ("small",))
    fitted = fit_mode(Context(data, tasks.choose, None, CONFIG), "scratch")
    task = tasks.choose.target_only()
    values, users = cross_fitted_ndcg(fitted.model, data, task, "scratch", CONFIG.parts)
    assert np.array_equal(users, task.rows.user)
    assert values.mean() < fitted.hyperparameters.weights.ndcg - 0.005
    again, _ = cross_fitted_ndcg(fitted.model, data, task, "scratch", CONFIG.parts)
    assert np.array_equal(values, again)
    # One part alone has no weight to tune, so cross-fitting changes nothing.
    alone, _ = cross_fitted_ndcg(fitted.model, data, task, "scratch", ("bias",))
    assert alone.mean() == pytest.approx(
        tune_score_weights(fitted.model, data, task, "scratch", ("bias",)).ndcg, abs=0.02
    )
