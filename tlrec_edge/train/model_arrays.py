"""The arrays of a model folder: what a model holds under which name, and how it is built again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray

from tlrec_edge.core.features import TowerInputs
from tlrec_edge.train.model import ModelConfig, TwoTower
from tlrec_edge.train.quantized import QuantizedTable, QuantizedTables

if TYPE_CHECKING:
    from tlrec_edge.train.edge_model import EdgeModel

_SPARSE = ("data", "indices", "indptr")
_NET = "net."

Arrays = dict[str, NDArray[Any]]


def arrays_of(model: EdgeModel) -> Arrays:
    """Return every array of a model under its name in ``arrays.npz``."""
    net = model.net
    arrays: Arrays = {f"{_NET}{name}": value.numpy() for name, value in net.state_dict().items()}
    arrays |= {f"input.{name}": getattr(net, name).numpy() for name in TowerInputs._fields}
    for name, matrix in (("wide", model.wide), ("own", model.target_wide)):
        arrays |= {f"{name}.{part}": getattr(matrix, part) for part in _SPARSE}
    for name, factors in (("interest", model.interest), ("rest", model.residual)):
        arrays[f"{name}.inward"] = factors.input_factors
        arrays[f"{name}.outward"] = factors.output_factors
    arrays |= {"bias": model.bias, "groups": model.groups, "text_table": model.features.text_table}
    if model.tables is not None:
        for name, table in vars(model.tables).items():
            arrays[f"table.{name}.rows"] = table.rows
            arrays[f"table.{name}.scale"] = table.scale
            arrays[f"table.{name}.bits"] = np.array(table.bits)
    if model.quantized_wide is not None:
        del arrays["wide.data"]  # it follows from the quantized entries
        arrays["wide.entries"] = model.quantized_wide.entries
        arrays["wide.scale"] = model.quantized_wide.scale
    return arrays


def changed_arrays(arrays: Arrays, before: Arrays) -> tuple[Arrays, list[str]]:
    """Return the arrays of ``before`` that differ from those of the same name, and the other names.

    What describes the items, such as their text, does not change when a model is fitted again.
    """
    same = [
        name
        for name, array in before.items()
        if name in arrays
        and array.dtype == arrays[name].dtype
        and np.array_equal(array, arrays[name])
    ]
    return {name: array for name, array in before.items() if name not in same}, same


def restore_net(config: ModelConfig, items: int, candidates: int, arrays: Arrays) -> TwoTower:
    """Build a network from its arrays. Raises ValueError or RuntimeError if they do not fit."""
    inputs = TowerInputs(*(arrays[f"input.{name}"] for name in TowerInputs._fields))
    state = {
        name.removeprefix(_NET): torch.from_numpy(array).to(torch.float32, copy=True)
        for name, array in arrays.items()
        if name.startswith(_NET)
    }
    if max(config.layers, len(config.vocabulary)) > len(state):
        raise ValueError(f"{len(state)} arrays for more layers or categorical features")
    # Without memory for the weights: those that were saved are put in place if their shapes fit.
    with torch.device("meta"):
        net = TwoTower(config, items, candidates, inputs)
    net.load_state_dict(state, assign=True)
    net.eval()
    net.requires_grad_(False)
    return net


def restore_sparse(arrays: Arrays, name: str, shape: tuple[int, int]) -> sp.csr_array:
    """Build the sparse matrix of a name."""
    return sp.csr_array(tuple(arrays[f"{name}.{part}"] for part in _SPARSE), shape=shape)


def restore_tables(arrays: Arrays) -> QuantizedTables | None:
    """Build the quantized tables; None if the model has none."""
    if "table.history.rows" not in arrays:
        return None
    names = QuantizedTables.__dataclass_fields__
    return QuantizedTables(**{name: _restore_table(arrays, name) for name in names})


def _restore_table(arrays: Arrays, name: str) -> QuantizedTable:
    rows, scale = arrays[f"table.{name}.rows"], arrays[f"table.{name}.scale"]
    bits = arrays.get(f"table.{name}.bits", 8)  # the first models had only tables of 8 bits
    return QuantizedTable(rows, scale, int(bits))
