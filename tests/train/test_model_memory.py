"""A model owns its arrays: none is a view of a tensor, whose memory torch may free.

Torch frees it when it sends the tensor to another process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import is_dataclass, replace
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pytest
import scipy.sparse as sp
import torch
import torch.multiprocessing  # how it pickles a tensor is what every pool of processes then does

from helpers import synthetic
from tlrec_edge.core.features import TowerInputs
from tlrec_edge.export.items import add_graphs, item_contents
from tlrec_edge.export.search_index import add_search_index
from tlrec_edge.export.source import ExportSource
from tlrec_edge.export.users import add_users
from tlrec_edge.quantize import quantize_tables
from tlrec_edge.quantize.distil import reshaped
from tlrec_edge.train import EdgeModel, adapt, pretrain
from tlrec_edge.train.bundle_arrays import stored_arrays
from tlrec_edge.train.model import TwoTower

QUICK = replace(synthetic.CONFIG, epochs=1, pretrain_epochs=1)


def pretrained() -> EdgeModel:
    return pretrain(synthetic.dataset(), ("big",), QUICK)


def adapted(mode: str) -> EdgeModel:
    source = None if mode == "scratch" else synthetic.source()
    return adapt(synthetic.dataset(), ("small",), mode, source, QUICK)


MODELS: dict[str, Callable[[], EdgeModel]] = {
    "pretrained": pretrained,
    "scratch": lambda: adapted("scratch"),
    "zero-shot": lambda: adapted("zero-shot"),
    "finetune": lambda: adapted("finetune"),
    "quantized": lambda: quantize_tables(adapted("finetune")),
}
each_model = pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)


def arrays_in(value: object, path: str) -> Iterator[tuple[str, np.ndarray]]:
    """Yield every array in a model's fields and cached vectors, but not the network's tensors."""
    if isinstance(value, np.ndarray):
        yield path, value
    elif isinstance(value, sp.csr_array):
        for name in ("data", "indices", "indptr"):
            yield f"{path}.{name}", getattr(value, name)
    elif isinstance(value, tuple):
        for place, part in enumerate(value):
            yield from arrays_in(part, f"{path}[{place}]")
    elif is_dataclass(value):
        for name, part in vars(value).items():
            yield from arrays_in(part, f"{path}.{name}")


def tensors_in(net: TwoTower) -> dict[str, torch.Tensor]:
    inputs = {name: getattr(net, name) for name in TowerInputs._fields}
    return {**net.state_dict(), **inputs}


def content(model: EdgeModel) -> dict[str, np.ndarray]:
    """Copy every array and every tensor of a model."""
    tensors = {f"net.{name}": value.numpy().copy() for name, value in tensors_in(model.net).items()}
    return tensors | {name: array.copy() for name, array in arrays_in(model, "model")}


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def poison(net: TwoTower) -> list[torch.Tensor]:
    """Take the memory that tensors of these sizes freed, and fill it with a value no weight has."""
    return [torch.full_like(value, 77) for value in tensors_in(net).values() for _ in range(20)]


@each_model
def test_a_model_survives_being_sent_to_a_process(make: Callable[[], EdgeModel]) -> None:
    model = make()
    _ = model.history_vectors, model.candidate_vectors, model.low_rank_vectors, model.residual_in
    before = content(model)
    sent = bytes(ForkingPickler.dumps(model))
    taken = poison(model.net)
    assert_same(content(model), before)
    assert_same(content(ForkingPickler.loads(sent)), before)
    assert taken


@each_model
def test_no_array_is_a_view_of_a_tensor(make: Callable[[], EdgeModel]) -> None:
    model = make()
    arrays = dict(arrays_in(model, "model")) | stored_arrays(model)
    assert {"model.bias", "model.features.text_table", "model.wide.data"} <= arrays.keys()
    for name, array in arrays.items():
        for other, tensor in tensors_in(model.net).items():
            assert not np.shares_memory(array, tensor.numpy()), f"{name} is a view of {other}"


@each_model
def test_no_array_of_a_bundle_is_a_view_of_a_tensor(make: Callable[[], EdgeModel]) -> None:
    """An export keeps its arrays until it writes them, and other bundles are timed meanwhile."""
    model = make()
    if model.provenance.kind == "source":
        pytest.skip("a source model is not exported")
    source = ExportSource.of(model, synthetic.dataset(), seed=0)
    contents = add_graphs(item_contents(source, {}), source)
    contents = add_users(contents, source, source.target_users, "plain", None)
    contents = add_search_index(contents, source)
    assert len(contents.arrays) > 12
    for name, array in contents.arrays.items():
        for other, tensor in tensors_in(model.net).items():
            assert not np.shares_memory(array, tensor.numpy()), f"{name} is a view of {other}"


def test_a_network_of_another_shape_outlives_the_one_it_shares_tensors_with() -> None:
    net = adapted("finetune").net
    encoder = {
        name: value.clone()
        for name, value in net.state_dict().items()
        if name.startswith("encoder.")
    }
    other = reshaped(net, net.config, encoder)
    before = {name: value.clone() for name, value in tensors_in(other).items()}
    ForkingPickler.dumps(net)
    taken = poison(net)
    for name, value in tensors_in(other).items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0, msg=name)
    assert taken
