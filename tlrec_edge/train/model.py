"""The two towers: item content and ids on one side, the history encoder on the other."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tlrec_edge.core.features import TowerInputs

PAD = -1e9
"""Added to the attention logit of a padded position."""
SPARSE_GRADIENT_ROWS = 100_000
"""Larger tables of ids get sparse gradients: a step then costs what it touches, not the whole table."""
AGE_BUCKETS = 12
"""Buckets of age in days, by powers of two."""


@dataclass(frozen=True)
class ModelConfig:
    """Shape of the towers; ``size`` picks the encoder.

    ``fast`` pools the history with learned queries; ``base`` runs self-attention layers, the last one for the last
    position only. ``feed_forward`` is the hidden width of the encoder's feed-forward part. Without
    ``ids`` an item is its content alone. Pruning makes the vectors narrower than what computes them: ``tower_width``
    is the hidden width of the item tower (None: ``width``), ``head_width`` that of an attention head (None: an equal
    share of ``width``).
    """

    size: str = "fast"
    width: int = 64
    history: int = 50
    queries: int = 4
    layers: int = 2
    heads: int = 2
    feed_forward: int = 128
    dropout: float = 0.2
    id_dropout: float = 0.1
    text: int = 0
    numeric: int = 0
    vocabulary: tuple[int, ...] = ()
    ids: bool = True
    tower_width: int | None = None
    head_width: int | None = None

    def __post_init__(self) -> None:
        if self.size not in ENCODERS:
            raise ValueError(f"size must be one of {sorted(ENCODERS)}, not {self.size!r}")
        for name in ("width", "history", "queries", "layers", "heads", "tower_width", "head_width"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
        if self.head_width is None and self.width % self.heads:
            raise ValueError(f"width {self.width} must be a multiple of heads {self.heads}")
        most = 4 * self.hidden_width
        if not 0 < self.feed_forward <= most:
            raise ValueError(
                f"feed_forward must lie in 1..{most} (4 x width), not {self.feed_forward}"
            )

    @property
    def hidden_width(self) -> int:
        """Width that the item tower computes in; that of the whole model before its vectors were cut."""
        return self.tower_width or self.width

    @property
    def attention_width(self) -> int:
        """Width of one attention head."""
        return self.head_width or self.width // self.heads

    @property
    def content(self) -> bool:
        return bool(self.text or self.numeric or self.vocabulary)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> ModelConfig:
        return cls(**{**data, "vocabulary": tuple(data["vocabulary"])})


class ItemTower(nn.Module):
    """Content to an item's two vectors: one for its place in a history, one for its place among candidates."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.hidden_width
        self.text = nn.Linear(config.text, width, bias=False) if config.text else None
        self.numeric = nn.Linear(config.numeric, width, bias=False) if config.numeric else None
        self.categories = nn.ModuleList(
            nn.Embedding(size + 1, width, padding_idx=0) for size in config.vocabulary
        )
        self.hidden = nn.Linear(width, width)
        self.history = nn.Linear(width, config.width, bias=False)
        self.candidate = nn.Linear(width, config.width, bias=False)
        # From zero, so that a feature the source never shows moves no score in the target.
        for part in (self.text, self.numeric, *self.categories):
            if part is not None:
                nn.init.zeros_(part.weight)
        for head in (self.history, self.candidate):
            nn.init.normal_(head.weight, std=0.05)

    def content(self, text: Tensor, numeric: Tensor, categories: Tensor) -> Tensor:
        """Return the hidden layer both vectors are linear in, (n, hidden_width)."""
        parts = [table(categories[:, i]) for i, table in enumerate(self.categories)]
        if self.text is not None:
            parts.append(self.text(text))
        if self.numeric is not None:
            parts.append(self.numeric(numeric))
        summed = parts[0]  # (n, hidden_width)
        for part in parts[1:]:
            summed = summed + part
        hidden: Tensor = summed + nn.functional.gelu(self.hidden(summed))
        return hidden

    def forward(self, text: Tensor, numeric: Tensor, categories: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.content(text, numeric, categories)
        return self.history(hidden), self.candidate(hidden)


class FeedForward(nn.Module):
    """Two layers around a GELU; its hidden units can be pruned."""

    def __init__(self, inputs: int, hidden: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self.up = nn.Linear(inputs, hidden)
        self.down = nn.Linear(hidden, outputs)
        self.dropout = nn.Dropout(dropout)
        with torch.no_grad():
            self.down.weight.mul_(0.2)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.down(self.dropout(nn.functional.gelu(self.up(x))))
        return output


class FastEncoder(nn.Module):
    """Attention pooling with learned queries, then a small residual feed-forward part."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width, pooled = config.width, config.queries * config.width
        self.query = nn.Parameter(torch.randn(width, config.queries) / width**0.5)
        self.skip = nn.Linear(pooled, width, bias=False)
        self.feed_forward = FeedForward(pooled, config.feed_forward, width, config.dropout)
        with torch.no_grad():
            self.skip.weight.copy_(torch.eye(width).repeat(1, config.queries) / config.queries)

    def forward(self, history: Tensor, log_weight: Tensor) -> Tensor:
        logits = history @ self.query + log_weight.unsqueeze(2)  # (batch, length, queries)
        pooled = (torch.softmax(logits, 1).transpose(1, 2) @ history).flatten(
            1
        )  # (batch, queries * width)
        user: Tensor = self.skip(pooled) + self.feed_forward(pooled)
        return user


class SelfAttention(nn.Module):
    """One pre-norm layer; with ``last`` only the last position asks, so no other output is computed."""

    def __init__(self, config: ModelConfig, last: bool) -> None:
        super().__init__()
        width, mixed = config.width, config.heads * config.attention_width
        self.heads, self.last, self.scale = config.heads, last, config.attention_width**-0.5
        self.norm = nn.LayerNorm(width)
        self.q = nn.Linear(width, mixed)
        self.k = nn.Linear(width, mixed, bias=False)
        self.v = nn.Linear(width, mixed)
        self.out = nn.Linear(mixed, width)
        self.norm_ff = nn.LayerNorm(width)
        self.feed_forward = FeedForward(width, config.feed_forward, width, config.dropout)
        self.dropout = nn.Dropout(config.dropout)
        with torch.no_grad():
            self.out.weight.mul_(0.3)

    def forward(self, x: Tensor, log_weight: Tensor) -> Tensor:
        length = x.shape[1]
        normed = self.norm(x)
        query = normed[:, length - 1 :] if self.last else normed
        q, k, v = (self._split(part) for part in (self.q(query), self.k(normed), self.v(normed)))
        logits = (q * self.scale) @ k.transpose(2, 3) + log_weight[
            :, None, None, :
        ]  # (batch, heads, query, length)
        mixed = (
            (torch.softmax(logits, -1) @ v).transpose(1, 2).flatten(2)
        )  # (batch, query, heads * head_width)
        residual = x[:, length - 1 :] if self.last else x
        x = residual + self.dropout(self.out(mixed))
        output: Tensor = x + self.dropout(self.feed_forward(self.norm_ff(x)))
        return output

    def _split(self, x: Tensor) -> Tensor:
        batch, length, mixed = x.shape
        parts = x.reshape(batch, length, self.heads, mixed // self.heads)
        return parts.transpose(1, 2)  # (batch, heads, length, head_width)


class BaseEncoder(nn.Module):
    """Self-attention over the history, as SASRec (arXiv 1808.09781), plus the mean of the history as a skip."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.position = nn.Parameter(torch.zeros(config.history, config.width))
        self.layers = nn.ModuleList(
            SelfAttention(config, i == config.layers - 1) for i in range(config.layers)
        )

    def forward(self, history: Tensor, log_weight: Tensor) -> Tensor:
        x = history + self.position
        for layer in self.layers:
            x = layer(x, log_weight)
        pooled = torch.softmax(log_weight, 1).unsqueeze(1) @ history  # (batch, 1, width)
        return (x[:, -1:] + pooled).squeeze(1)


ENCODERS: dict[str, type[FastEncoder] | type[BaseEncoder]] = {
    "fast": FastEncoder,
    "base": BaseEncoder,
}


class TwoTower(nn.Module):
    """Item vectors from content and ids, user vectors from histories; the first item rows are the candidates."""

    def __init__(
        self, config: ModelConfig, items: int, candidates: int, inputs: TowerInputs
    ) -> None:
        super().__init__()
        self.config = config
        self.tower = ItemTower(config) if config.content else None
        self.history_id = nn.Embedding(items, config.width, sparse=items > SPARSE_GRADIENT_ROWS)
        self.candidate_id = nn.Embedding(
            candidates, config.width, sparse=candidates > SPARSE_GRADIENT_ROWS
        )
        self.sparse = self.history_id.sparse or self.candidate_id.sparse
        self.bias = nn.Parameter(torch.zeros(candidates))
        self.encoder = ENCODERS[config.size](config)
        self.position_bias = nn.Parameter(torch.zeros(config.history))
        self.event_bias = nn.Parameter(torch.zeros(5))
        self.age_bias = nn.Parameter(torch.zeros(AGE_BUCKETS))
        nn.init.normal_(self.history_id.weight, std=0.02)
        nn.init.normal_(self.candidate_id.weight, std=0.02)
        self.text = torch.from_numpy(inputs.text)
        self.numeric = torch.from_numpy(inputs.numeric)
        self.categories = torch.from_numpy(inputs.categories)

    def history_vectors(self, rows: Tensor) -> Tensor:
        """Return history-side vectors of item rows, (n, width)."""
        return self._vectors(rows, self.history_id, 0)

    def candidate_vectors(self, rows: Tensor | None = None) -> Tensor:
        """Return candidate-side vectors, (n, width); of all candidates without ``rows``."""
        rows = torch.arange(len(self.bias)) if rows is None else rows
        return self._vectors(rows, self.candidate_id, 1)

    def _vectors(self, rows: Tensor, ids: nn.Embedding, side: int) -> Tensor:
        own: Tensor = ids(rows) if self.config.ids else torch.zeros(len(rows), self.config.width)
        if self.tower is None:
            return own
        if self.training and self.config.id_dropout:
            own = own * (torch.rand(len(rows), 1) >= self.config.id_dropout)
        content = self.tower(self.text[rows], self.numeric[rows], self.categories[rows])
        vectors: Tensor = own + content[side]
        return vectors

    def log_weight(self, event: Tensor, age: Tensor, present: Tensor) -> Tensor:
        """Return the attention bias of each position, (batch, length); ``age`` -1 means: no time known."""
        aged = torch.where(age >= 0, self.age_bias[age.clamp(min=0)], torch.zeros(()))
        bias = self.position_bias + self.event_bias[event] + aged
        return torch.where(present, bias, torch.full((), PAD))

    def users(self, history: Tensor, event: Tensor, age: Tensor, present: Tensor) -> Tensor:
        """Encode histories of item rows (batch, length), most recent last, to user vectors (batch, width)."""
        distinct, place = torch.unique(history, return_inverse=True)
        vectors = self.history_vectors(distinct)[place]  # (batch, length, width)
        if self.training:
            vectors = nn.functional.dropout(vectors, self.config.dropout)
        return self.encode(vectors, event, age, present)

    def encode(self, vectors: Tensor, event: Tensor, age: Tensor, present: Tensor) -> Tensor:
        """Encode histories given as item vectors (batch, length, width)."""
        user: Tensor = self.encoder(vectors, self.log_weight(event, age, present))
        return user


def numpy_copy(tensor: Tensor) -> NDArray[Any]:
    """Copy a tensor into an array of its own.

    The view that ``tensor.numpy()`` returns dangles as soon as torch sends the tensor to another process: pickling
    moves the tensor into shared memory and frees what the view points at. What is kept must be a copy.
    """
    return tensor.detach().numpy().copy()
