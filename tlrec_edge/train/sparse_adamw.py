"""AdamW for tables so large that a step must cost only the rows it reads."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class RowAdamW(torch.optim.AdamW):
    """AdamW that updates and decays only the rows of a sparse gradient.

    Dense AdamW moves every row at every step, because of momentum and weight decay. Here a row
    that no example of the batch uses keeps its value and its moments, as in torch's SparseAdam.
    Unlike that, there is weight decay. Parameters with dense gradients are updated by AdamW itself.
    """

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            for table in group["params"]:
                if table.grad is not None and table.grad.is_sparse:
                    self._update_rows(table, group)
                    table.grad = None  # AdamW skips parameters without a gradient
        return super().step(closure)

    def _update_rows(self, table: Tensor, group: dict[str, Any]) -> None:
        gradient = table.grad.coalesce()  # type: ignore[union-attr]  # checked by the caller
        rows, values = gradient.indices()[0], gradient.values()
        state = self.state[table]
        if not state:
            state |= {
                "step": torch.zeros(()),
                "exp_avg": torch.zeros_like(table),
                "exp_avg_sq": torch.zeros_like(table),
            }
        state["step"] += 1
        (beta1, beta2), step = group["betas"], state["step"].item()
        mean = state["exp_avg"][rows].lerp_(values, 1 - beta1)
        square = state["exp_avg_sq"][rows].mul_(beta2).addcmul_(values, values, value=1 - beta2)
        state["exp_avg"][rows], state["exp_avg_sq"][rows] = mean, square
        # As in SparseAdam, the bias correction counts the steps of the table, not of the row.
        scale = (square / (1 - beta2**step)).sqrt_().add_(group["eps"])
        decayed = table[rows] * (1 - group["lr"] * group["weight_decay"])
        table[rows] = decayed - group["lr"] / (1 - beta1**step) * mean / scale


def clip_gradients(model: nn.Module, max_norm: float) -> None:
    """Scale all gradients in place so that their joint norm is at most ``max_norm``.

    Does what ``clip_grad_norm_`` does, for sparse gradients too.
    """
    values = []
    for parameter in model.parameters():
        if parameter.grad is not None and parameter.grad.is_sparse:
            # Entries of one row must be summed before their norm is taken.
            parameter.grad = parameter.grad.coalesce()
            values.append(parameter.grad.values())
        elif parameter.grad is not None:
            values.append(parameter.grad)
    norm = nn.utils.get_total_norm(values)
    for part in values:
        part.mul_((max_norm / (norm + 1e-6)).clamp(max=1.0))
