"""The graphs that this package writes are allowed, and those of usual sequence models too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from helpers import bundles
from helpers.bundles import replace_file, use
from helpers.counts import say
from helpers.hostile import LENGTH, WIDTH
from tlrec_edge import BundleError, Recommender
from tlrec_edge.graph.check import CheckedGraph
from tlrec_edge.search.prefix_scan import scan_graph


def test_a_prefix_bound_of_fifty_million_candidates_is_allowed() -> None:
    width, count = 64, 50_000_128
    graph = CheckedGraph(scan_graph(width, count))
    graph.check_external({"heads": np.broadcast_to(np.uint8(0), (width, count))})
    outputs = {"products": (1, count), "maxima": (count // 128,)}
    graph.check_run(1, {"query": (1, width)}, outputs, "<i4")


class Recurrent(nn.Module):
    """GRU4Rec."""

    def __init__(self, kind: type[nn.GRU | nn.LSTM]) -> None:
        super().__init__()
        self.layer, self.out = kind(WIDTH, 12, batch_first=True), nn.Linear(12, WIDTH)

    def forward(self, history: Tensor, log_weight: Tensor) -> Any:
        states, _ = self.layer(history + log_weight.clamp(min=-9.0)[..., None])
        return self.out(states[:, -1])


class Attention(nn.Module):
    """SASRec."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(WIDTH, 2, 16, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.place, self.norm = nn.Embedding(LENGTH, WIDTH), nn.LayerNorm(WIDTH)

    def forward(self, history: Tensor, log_weight: Tensor) -> Any:
        later = torch.triu(torch.full((LENGTH, LENGTH), -1e9), 1)
        x = history * WIDTH**0.5 + self.place(torch.arange(LENGTH)) + 0 * log_weight[..., None]
        return self.norm(self.layers(x, mask=later))[:, -1]


class Convolution(nn.Module):
    """Caser."""

    def __init__(self) -> None:
        super().__init__()
        self.across, self.along = nn.Conv2d(1, 4, (3, WIDTH)), nn.Conv2d(1, 2, (LENGTH, 1))
        self.out = nn.Linear(4 + 2 * WIDTH, WIDTH)

    def forward(self, history: Tensor, log_weight: Tensor) -> Any:
        x = (history * log_weight.exp()[..., None])[:, None]
        across = torch.relu(self.across(x)).squeeze(3).amax(2)
        return self.out(torch.cat([across, self.along(x).flatten(1)], 1))


IMPORTED = {
    "GRU4Rec": lambda: Recurrent(nn.GRU),
    "LSTM": lambda: Recurrent(nn.LSTM),
    "SASRec": Attention,
    "Caser": Convolution,
}


@pytest.mark.filterwarnings("ignore")  # from torch's exporter
@pytest.mark.parametrize("name", IMPORTED)
def test_a_model_of_another_library_is_allowed(tmp_path: Path, name: str) -> None:
    torch.manual_seed(0)
    inputs = (torch.randn(2, LENGTH, WIDTH), torch.zeros(2, LENGTH))
    names = ["history", "log_weight"]
    torch.onnx.export(
        IMPORTED[name]().eval(),
        inputs,
        tmp_path / "model.onnx",
        dynamo=False,
        opset_version=17,
        input_names=names,
        output_names=["user"],
        dynamic_axes={name: {0: "batch"} for name in (*names, "user")},
    )
    bundles.build(tmp_path / "b", tower=False)
    replace_file(tmp_path / "b", "encoder.onnx", (tmp_path / "model.onnx").read_bytes())
    with Recommender.open(tmp_path / "b", verify="full") as rec:
        assert not [message for message in use(rec) if "encoder.onnx" in message]


def damage_graphs(bundle: Path, flips: int) -> int:
    """Flip bits of the encoder and the item tower; return how many damaged graphs could be used.

    Whatever is flipped, a bundle is refused if its manifest is not changed too. If it is, the
    bundle is refused or gives finite scores.
    """
    rng, used = np.random.default_rng(0), 0
    manifest = (bundle / "manifest.json").read_bytes()
    for trial in range(flips):
        name = ("encoder.onnx", "item_tower.onnx")[trial % 2]
        content = (bundle / name).read_bytes()
        damaged = bytearray(content)
        # Most bytes are weights; the others are at the start and the end.
        ends = np.r_[0:400, len(content) - 400 : len(content)]
        damaged[int(rng.choice(ends))] ^= 1 << int(rng.integers(8))
        (bundle / name).write_bytes(damaged)
        with pytest.raises(BundleError, match="was altered"), Recommender.open(bundle) as rec:
            rec.add_items({"new": {"title": "red mug"}})
        replace_file(bundle, name, bytes(damaged))
        try:
            with Recommender.open(bundle, verify="full") as rec:
                messages = use(rec)
                used += 1
        except BundleError as error:
            messages = [str(error)]
        assert all(message.isprintable() for message in messages)
        (bundle / name).write_bytes(content)
        (bundle / "manifest.json").write_bytes(manifest)
    return used


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # from numpy, before the error
@pytest.mark.parametrize("flips", [40, pytest.param(1_000, marks=pytest.mark.slow)])
def test_a_flipped_bit_is_refused_or_gives_finite_scores(tmp_path: Path, flips: int) -> None:
    bundles.build(tmp_path / "b", users=["ann", "bob"])
    used = damage_graphs(tmp_path / "b", flips)
    say(f"{flips} damaged graphs: {flips - used} refused, {used} gave finite scores")
    assert 0 < used < flips
