"""Alignment: its losses, their effect on content vectors, and what they may read."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from helpers import synthetic
from helpers.networks import SMALL, item_tower, network, text_layer
from helpers.synthetic import CONFIG
from tlrec_edge.core.features import TowerInputs
from tlrec_edge.data.prepare import SplitPlan, prepare_tables
from tlrec_edge.errors import DataError, ModelError
from tlrec_edge.train import EdgeModel, adapt, adapt_auto, pretrain
from tlrec_edge.train.align import ALIGNMENTS, SAMPLE, Adversarial, Coral, GradientReversal
from tlrec_edge.train.config import TrainConfig
from tlrec_edge.train.item_features import encode_features
from tlrec_edge.train.model import TwoTower

QUICK = replace(CONFIG, epochs=2, pretrain_epochs=2)
each_kind = pytest.mark.parametrize("align", sorted(ALIGNMENTS))


def sides(shift: float) -> list[TowerInputs]:
    """Return two sides of 40 items whose text and numbers differ by a scale."""
    rng = np.random.default_rng(0)
    return [
        TowerInputs(
            (scale * rng.standard_normal((40, 3))).astype(np.float32),
            (scale * rng.standard_normal((40, 2))).astype(np.float32),
            rng.integers(0, 2, (40, 2)),
        )
        for scale in (1.0, shift)
    ]


def parameters(model: EdgeModel) -> np.ndarray:
    return np.concatenate([value.numpy().ravel() for value in model.net.state_dict().values()])


def gradient_norm(layer: torch.nn.Module) -> float:
    assert isinstance(layer, torch.nn.Linear)
    assert layer.weight.grad is not None
    return float(layer.weight.grad.norm())


def test_the_gradient_is_reversed() -> None:
    x = torch.ones(3, requires_grad=True)
    y = GradientReversal.apply(x, 0.5)  # type: ignore[no-untyped-call]  # untyped in torch
    torch.testing.assert_close(y, x)
    (y * torch.tensor([1.0, 2.0, 3.0])).sum().backward()
    torch.testing.assert_close(x.grad, torch.tensor([-0.5, -1.0, -1.5]))


def test_the_reversal_grows_as_in_the_paper_and_leaves_the_classifier_alone() -> None:
    net = network(SMALL)
    with torch.no_grad():
        text_layer(net).weight.normal_()
    pulled = []
    for epoch in (0.0, 5.0, 10.0, 99.0):
        loss = Adversarial(8, sides(3.0), 2.0, 10, seed=0)
        net.zero_grad()
        torch.manual_seed(1)
        loss(net, epoch).backward()
        pulled.append((gradient_norm(text_layer(net)), gradient_norm(loss.classifier[0])))
    tower, classifier = np.array(pulled).T
    assert tower[0] == 0
    np.testing.assert_allclose(
        tower[1] / tower[2], (2 / (1 + np.exp(-5)) - 1) / (2 / (1 + np.exp(-10)) - 1), rtol=1e-5
    )
    assert tower[2] == pytest.approx(tower[3])
    np.testing.assert_allclose(classifier, classifier[0], rtol=1e-6)


def test_coral_is_the_distance_of_the_covariances() -> None:
    net, loss = network(SMALL), Coral(sides(3.0), 2.0, 1)
    with torch.no_grad():
        text_layer(net).weight.normal_()
    torch.manual_seed(5)
    found = loss(net, 0.0)
    torch.manual_seed(5)
    vectors = [part.detach().numpy() for part in loss.content(net)]
    one, other = (
        np.cov(part.T) / np.concatenate(vectors).var(0, ddof=1).mean() for part in vectors
    )
    assert found.item() == pytest.approx(2.0 * ((one - other) ** 2).sum() / (4 * 8**2), rel=1e-4)
    assert loss.report() == {"loss": pytest.approx(found.item() / 2.0)}
    assert loss.report() == {}


def test_a_group_smaller_than_the_sample_is_drawn_with_replacement() -> None:
    vectors = Coral(sides(1.0), 1.0, 1).content(network(SMALL))
    assert [len(part) for part in vectors] == [SAMPLE, SAMPLE]


def probe_accuracy(net: TwoTower, groups: list[TowerInputs]) -> float:
    """Return the accuracy of a fresh linear probe that separates the sides' content."""
    with torch.no_grad():
        content = torch.cat(
            [item_tower(net).content(*map(torch.from_numpy, side)) for side in groups]
        ).numpy()
    centred = content - content.mean(0)
    side = np.repeat([-1.0, 1.0], len(content) // 2)
    gram = centred.T @ centred + 0.1 * np.trace(centred.T @ centred) / content.shape[1] * np.eye(
        content.shape[1]
    )
    return float((np.sign(centred @ np.linalg.solve(gram, centred.T @ side)) == side).mean())


def test_the_tower_learns_to_hide_the_side() -> None:
    """A classifier separates the sides, unless the tower works against it.

    The two take turns winning, and a kernel of BLAS decides who does at a given step, so what
    counts is the mean over the last steps of three runs.
    """
    without = [_probe_and_classifier(0.0, seed) for seed in range(3)]
    against = [_probe_and_classifier(1.0, seed) for seed in range(3)]
    assert np.min(without) > 0.9, without
    assert np.mean(against, axis=0).max() < 0.75, against


def _probe_and_classifier(weight: float, seed: int) -> tuple[float, float]:
    """Train a tower against a classifier; return the accuracy of a probe and of the classifier."""
    torch.manual_seed(seed)
    both = sides(1.0)
    both[1].numeric[:, 0] += 3.0
    net = network(SMALL)
    tower = item_tower(net)
    with torch.no_grad():
        for layer in (tower.numeric, tower.text):
            assert layer is not None
            layer.weight.normal_(std=0.3)
    loss = Adversarial(8, both, weight, 100, seed)
    groups: list[dict[str, Any]] = [
        {"params": tower.parameters()},
        {"params": loss.parameters(), "lr": 0.05},
    ]
    optimizer = torch.optim.AdamW(groups, lr=0.005)
    probes = []
    for step in range(600):
        optimizer.zero_grad()
        loss(net, step / 6).backward()
        optimizer.step()
        if step == 500:
            loss.report()
        if step >= 500 and step % 10 == 0:
            probes.append(probe_accuracy(net, both))
    return float(np.mean(probes)), loss.report()["accuracy"]


def test_coral_brings_source_and_target_items_nearer() -> None:
    """The distance of the sides' covariances, relative to that of all items, is smaller."""
    items = synthetic.items().copy()
    items["title"] = np.where(
        items["domain"] == "small", "corner shop " + items["title"], items["title"]
    )
    data = prepare_tables(
        [synthetic.interactions()], [items], None, SplitPlan(negatives=20)
    ).dataset
    distances = []
    for kind in ("none", "coral"):
        source = pretrain(data, ("big",), replace(CONFIG, align=kind))
        rows = [np.flatnonzero(data.item_domain == code).astype(np.int32) for code in (0, 1)]
        inputs = [encode_features(data, source.features, part) for part in rows]
        tower = item_tower(source.net)
        with torch.no_grad():
            big, small = (tower.content(*map(torch.from_numpy, part)) for part in inputs)
        distances.append(
            (
                (torch.cov(big.T) - torch.cov(small.T)).norm()
                / torch.cov(torch.cat([big, small]).T).norm()
            ).item()
        )
    assert distances[1] < 0.8 * distances[0], distances


@each_kind
def test_what_alignment_reached_is_reported_and_stored(align: str) -> None:
    said: list[str] = []
    data = synthetic.dataset()
    source = pretrain(data, ("big",), replace(QUICK, align=align), said.append)
    names = {"loss", "accuracy"} if align == "adversarial" else {"loss"}
    assert set(source.provenance.align) == names
    assert all(f"alignment {name} " in said[-1] for name in names)
    for mode in ("finetune", "joint"):
        model = adapt(data, ("small",), mode, source, replace(QUICK, align=align))
        assert set(model.provenance.align) == names
        assert model.provenance.train.align == align
    assert not adapt(
        data, ("small",), "scratch", None, replace(QUICK, align=align)
    ).provenance.align
    assert not synthetic.model().provenance.align


@each_kind
def test_the_same_seed_aligns_the_same_way(align: str) -> None:
    data = synthetic.dataset()
    one, again, other = (
        pretrain(data, ("big",), replace(QUICK, align=align, seed=seed)) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(parameters(one), parameters(again))
    assert np.abs(parameters(one) - parameters(other)).max() > 0
    assert (
        np.abs(parameters(one) - parameters(pretrain(data, ("big",), replace(QUICK, seed=1)))).max()
        > 0
    )


@each_kind
def test_alignment_reads_no_interaction_of_the_target(align: str) -> None:
    config = replace(QUICK, align=align)
    data = synthetic.dataset()
    reversed_items = synthetic.shuffled(lambda item: item[::-1].copy())
    one, other = (pretrain(dataset, ("big",), config) for dataset in (data, reversed_items))
    np.testing.assert_array_equal(parameters(one), parameters(other))


@each_kind
def test_two_source_domains_are_aligned_with_each_other_without_a_third(align: str) -> None:
    source = pretrain(synthetic.dataset(), ("big", "small"), replace(QUICK, align=align))
    assert source.provenance.align["loss"] >= 0


def test_data_that_cannot_be_aligned_is_refused() -> None:
    with pytest.raises(
        ModelError, match="--align coral needs item features, and this dataset has none"
    ):
        pretrain(synthetic.ids_only(), ("all",), replace(QUICK, align="coral"))
    big = synthetic.interactions().query("domain == 'big'")
    items = synthetic.items().query("domain == 'big'")
    alone = prepare_tables([big], [items], None, SplitPlan(negatives=20)).dataset
    with pytest.raises(DataError, match="big has nothing to be aligned with"):
        pretrain(alone, ("big",), replace(QUICK, align="coral"))


def test_auto_takes_an_aligned_source() -> None:
    data = synthetic.dataset()
    config = replace(QUICK, align="adversarial", epochs=1)
    model, _ = adapt_auto(data, ("small",), pretrain(data, ("big",), config))
    assert model.provenance.train.align == "adversarial"


def test_the_table_has_every_kind() -> None:
    with pytest.raises(ValueError, match="align must be one of"):
        TrainConfig(align="magic")
    with pytest.raises(ValueError, match="align_weight must be finite"):
        TrainConfig(align_weight=float("nan"))
