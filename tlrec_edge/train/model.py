"""The two towers: vectors of items from content and ids, vectors of users from histories."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tlrec_edge.core.features import TowerInputs
from tlrec_edge.train.dropout import Dropout

PAD = -1e9
"""Added to the attention logit of a padded position."""
SPARSE_GRADIENT_ROWS = 20_000
"""Larger id tables get sparse gradients: a step then costs the rows it reads, not the table."""
AGE_BUCKETS = 12
"""Buckets of the age of an interaction in days, by powers of two."""
EVENT_COUNT = 5
"""Rows of the event bias: the number of ``EVENTS``."""


@dataclass(frozen=True)
class ModelConfig:
    """The shape of the towers; a value outside its range raises ValueError.

    Attributes:
        size: The encoder: "fast" pools histories with learned queries, "base" runs self-attention.
        width: Width of item and user vectors.
        history: Interactions that the encoder reads.
        queries: Queries of the fast encoder.
        layers: Layers of the base encoder.
        heads: Attention heads of a layer.
        feed_forward: Hidden width of the encoder's feed-forward part.
        dropout: Dropout of the encoder, and of item vectors in histories.
        id_dropout: Share of item vectors that are trained on their content alone, so that items
            without a trained id can be scored.
        text: Width of text features.
        numeric: Width of numeric features.
        vocabulary: Values of each categorical feature.
        ids: Whether items have id vectors; without them an item is its content alone.
        tower_width: Hidden width of the item tower; None: ``width``. Pruning can make item vectors
            narrower than the layer that computes them.
        head_width: Width of an attention head; None: an equal share of ``width``.
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
        limit = 4 * self.hidden_width
        if not 0 < self.feed_forward <= limit:
            raise ValueError(
                f"feed_forward must lie in 1..{limit} (4 x width), not {self.feed_forward}"
            )

    @property
    def hidden_width(self) -> int:
        """Hidden width of the item tower."""
        return self.tower_width or self.width

    @property
    def attention_width(self) -> int:
        """Width of one attention head."""
        return self.head_width or self.width // self.heads

    @property
    def content(self) -> bool:
        """Whether items have content features."""
        return bool(self.text or self.numeric or self.vocabulary)

    def to_json(self) -> dict[str, Any]:
        """Return the shape as JSON types."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> ModelConfig:
        """Read what ``to_json`` returned. Raises TypeError or ValueError if it is damaged."""
        return cls(**{**data, "vocabulary": tuple(data["vocabulary"])})


class ItemTower(nn.Module):
    """Map an item's content to two vectors: one for histories, one for candidates."""

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
        # At zero, so that a feature value that training never meets does not change a score.
        for part in (self.text, self.numeric, *self.categories):
            if part is not None:
                nn.init.zeros_(part.weight)
        for projection in (self.history, self.candidate):
            nn.init.normal_(projection.weight, std=0.05)

    def content(self, text: Tensor, numeric: Tensor, categories: Tensor) -> Tensor:
        """Return the hidden layer, (n, hidden_width). Both vectors are linear in it."""
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
    """Two linear layers with a GELU between them."""

    def __init__(self, inputs: int, hidden: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self.up = nn.Linear(inputs, hidden)
        self.down = nn.Linear(hidden, outputs)
        self.dropout = Dropout(dropout)
        with torch.no_grad():
            self.down.weight.mul_(0.2)  # starts close to the residual path

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.down(self.dropout(nn.functional.gelu(self.up(x))))
        return output


class FastEncoder(nn.Module):
    """Attention pooling with learned queries, then a residual feed-forward part."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width, pooled = config.width, config.queries * config.width
        self.query = nn.Parameter(torch.randn(width, config.queries) / width**0.5)
        self.skip = nn.Linear(pooled, width, bias=False)
        self.feed_forward = FeedForward(pooled, config.feed_forward, width, config.dropout)
        with torch.no_grad():
            # At first a user is the mean of what the queries pool.
            pooling = self.skip.weight.zero_().view(width, config.queries, width)
            pooling.diagonal(dim1=0, dim2=2).fill_(1 / config.queries)

    def forward(self, history: Tensor, log_weight: Tensor) -> Tensor:
        logits = history @ self.query + log_weight.unsqueeze(2)  # (batch, length, queries)
        attention = torch.softmax(logits, 1).transpose(1, 2)
        pooled = (attention @ history).flatten(1)  # (batch, queries * width)
        user: Tensor = self.skip(pooled) + self.feed_forward(pooled)
        return user


class SelfAttention(nn.Module):
    """A pre-norm transformer layer; with ``last`` it computes only the last position."""

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
        self.dropout = Dropout(config.dropout)
        with torch.no_grad():
            self.out.weight.mul_(0.3)

    def forward(self, x: Tensor, log_weight: Tensor) -> Tensor:
        length = x.shape[1]
        normed = self.norm(x)
        query = normed[:, length - 1 :] if self.last else normed
        q, k, v = (self._split(part) for part in (self.q(query), self.k(normed), self.v(normed)))
        bias = log_weight[:, None, None, :]
        logits = (q * self.scale) @ k.transpose(2, 3) + bias  # (batch, heads, query, length)
        attention = torch.softmax(logits, -1)
        mixed = (attention @ v).transpose(1, 2).flatten(2)  # (batch, query, heads * head_width)
        residual = x[:, length - 1 :] if self.last else x
        x = residual + self.dropout(self.out(mixed))
        output: Tensor = x + self.dropout(self.feed_forward(self.norm_ff(x)))
        return output

    def _split(self, x: Tensor) -> Tensor:
        batch, length, mixed = x.shape
        parts = x.reshape(batch, length, self.heads, mixed // self.heads)
        return parts.transpose(1, 2)  # (batch, heads, length, head_width)


class BaseEncoder(nn.Module):
    """Self-attention over the history as in SASRec (arXiv 1808.09781), plus the history's mean."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.position = nn.Parameter(torch.zeros(config.history, config.width))
        self.layers = nn.ModuleList(
            SelfAttention(config, i == config.layers - 1) for i in range(config.layers)
        )

    def forward(self, history: Tensor, log_weight: Tensor) -> Tensor:
        x = history + self.position[-history.shape[1] :]
        for layer in self.layers:
            x = layer(x, log_weight)
        pooled = torch.softmax(log_weight, 1).unsqueeze(1) @ history  # (batch, 1, width)
        return (x[:, -1:] + pooled).squeeze(1)


ENCODERS: dict[str, type[FastEncoder] | type[BaseEncoder]] = {
    "fast": FastEncoder,
    "base": BaseEncoder,
}


class TwoTower(nn.Module):
    """Item vectors from content and ids, user vectors from histories.

    The first ``candidates`` of the ``items`` rows are the candidates.
    """

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
        self.dropout = Dropout(config.dropout)
        self.position_bias = nn.Parameter(torch.zeros(config.history))
        self.event_bias = nn.Parameter(torch.zeros(EVENT_COUNT))
        self.age_bias = nn.Parameter(torch.zeros(AGE_BUCKETS))
        nn.init.normal_(self.history_id.weight, std=0.02)
        nn.init.normal_(self.candidate_id.weight, std=0.02)
        self.text = torch.from_numpy(inputs.text)
        self.numeric = torch.from_numpy(inputs.numeric)
        self.categories = torch.from_numpy(inputs.categories)

    def history_vectors(self, rows: Tensor) -> Tensor:
        """Return history-side vectors of item rows, (n, width)."""
        projection = self.tower.history if self.tower else None
        return self._vectors(rows, self.history_id, projection)

    def candidate_vectors(self, rows: Tensor | None = None) -> Tensor:
        """Return candidate-side vectors of item rows, (n, width); None: of all candidates."""
        rows = torch.arange(len(self.bias)) if rows is None else rows
        projection = self.tower.candidate if self.tower else None
        return self._vectors(rows, self.candidate_id, projection)

    def _vectors(self, rows: Tensor, ids: nn.Embedding, projection: nn.Linear | None) -> Tensor:
        """Add up the items' id vectors, and their content if it is projected to vectors."""
        vectors: Tensor
        vectors = ids(rows) if self.config.ids else torch.zeros(len(rows), self.config.width)
        if self.tower is None or projection is None:
            return vectors
        if self.training and self.config.id_dropout:
            vectors = vectors * (torch.rand(len(rows), 1) >= self.config.id_dropout)
        content = self.tower.content(self.text[rows], self.numeric[rows], self.categories[rows])
        summed: Tensor = vectors + projection(content)
        return summed

    def log_weight(self, event: Tensor, age: Tensor, present: Tensor) -> Tensor:
        """Return the attention bias of each position, (batch, length); age -1: unknown time."""
        aged = torch.where(age >= 0, self.age_bias[age.clamp(min=0)], torch.zeros(()))
        bias = self.position_bias[-event.shape[1] :] + self.event_bias[event] + aged
        return torch.where(present, bias, torch.full((), PAD))

    def users(self, history: Tensor, event: Tensor, age: Tensor, present: Tensor) -> Tensor:
        """Encode histories of item rows (batch, length), most recent last: (batch, width)."""
        # Most histories are short: only the items that are present are looked up, and positions
        # before the longest history of the batch are left out.
        length = max(1, history.shape[1] - int(present.any(0).byte().argmax()))
        history, event, age, present = (
            part[:, -length:] for part in (history, event, age, present)
        )
        distinct, index = torch.unique(history[present], return_inverse=True)
        vectors = self.dropout(self.history_vectors(distinct)[index])  # (present items, width)
        padded = vectors.new_zeros(*history.shape, self.config.width)
        padded[present] = vectors
        return self.encode(padded, event, age, present)

    def encode(self, vectors: Tensor, event: Tensor, age: Tensor, present: Tensor) -> Tensor:
        """Encode histories of item vectors (batch, length, width): (batch, width)."""
        user: Tensor = self.encoder(vectors, self.log_weight(event, age, present))
        return user


def numpy_copy(tensor: Tensor) -> NDArray[Any]:
    """Return a copy of a tensor as an array.

    ``tensor.numpy()`` is a view. It dangles once torch has sent the tensor to another process,
    because that moves the tensor to shared memory and frees what the view points at.
    """
    return tensor.detach().numpy().copy()
