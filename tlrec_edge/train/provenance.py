"""The origin of a model: data, domains, hyperparameters, and the choices of validation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from tlrec_edge.train.config import TrainConfig
from tlrec_edge.train.parts import ScoreWeights

_REQUIRED = ("kind", "domains", "train", "split_sha256")
_EMPTY: tuple[Any, ...] = (None, (), {})
_STATED = ("fold", "source")
"""Fields that are written even if they are None."""


@dataclass(frozen=True)
class ValidationChoices:
    """Hyperparameters chosen on validation; the model was fitted again with exactly these.

    Attributes:
        epochs: Epochs of training, 0 if the network was not trained.
        penalty: Ridge penalty of the item-item weights.
        target_penalty: The same for the weights of the target alone; None: the model has none.
        half_life: Half-life of popularity in days; None: the bias does not decay.
        score_weights: The weight of each part in a score.
        validation_ndcg: NDCG@10 on the validation rows; None: no such row was used.
    """

    epochs: int
    penalty: float
    target_penalty: float | None
    half_life: float | None
    score_weights: ScoreWeights
    validation_ndcg: float | None

    def to_json(self) -> dict[str, Any]:
        """Return the choices under the keys of model folders."""
        return {
            "epochs": self.epochs,
            "penalty": self.penalty,
            "own_penalty": self.target_penalty,
            "half_life": self.half_life,
            "mix": self.score_weights.to_json(),
            "validation_ndcg@10": self.validation_ndcg,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ValidationChoices:
        """Read what ``to_json`` wrote. Raises KeyError or TypeError if a key is missing."""
        return cls(
            epochs=data["epochs"],
            penalty=data["penalty"],
            target_penalty=data["own_penalty"],
            half_life=data["half_life"],
            score_weights=ScoreWeights.from_json(data["mix"]),
            validation_ndcg=data["validation_ndcg@10"],
        )


@dataclass(frozen=True)
class ModeComparison:
    """One row of the table that chose the transfer mode.

    Attributes:
        mode: The option: a mode, a simplification of one, or the mean of the ways to transfer.
        ndcg: Its NDCG@10 on the validation rows.
        over: The option it is compared with.
        lift: The paired difference of NDCG@10.
        se: The standard error of the lift, clustered by user.
        chosen: Whether this option won.
    """

    mode: str
    ndcg: float
    over: str
    lift: float
    se: float
    chosen: bool


@dataclass(frozen=True)
class Provenance:
    """The origin of a model; it is empty for a network in training.

    Attributes:
        kind: "source" for a pretrained model, "target" for an adapted one.
        domains: The domains that the model was trained for.
        train: The hyperparameters.
        split_sha256: Hash of the dataset's split.
        dataset_sha256: Hash of the dataset; None in some models of version 0.1.0.
        mode: The transfer mode of a target model.
        fold: The fold of users that a target model holds out; None: no users.
        source: Other domains that a target model was trained on; None: no others.
        choices: The choices of validation for a target model.
        choice: The option that won if ``adapt_auto`` chose; it may simplify ``mode``.
        auto: The comparisons that chose it.
        compression: The report of ``compress``, which the bundle's manifest repeats.
        epochs: Epochs of a source model.
        losses: The mean loss of each of them.
        left_out: What the time budget left no time for; empty: nothing, or there was no budget.
        align: What the alignment of source and target content reached, by the name of the measure.
    """

    kind: str = ""
    domains: tuple[str, ...] = ()
    train: TrainConfig = field(default_factory=TrainConfig)
    split_sha256: str | None = None
    dataset_sha256: str | None = None
    mode: str | None = None
    fold: int | None = None
    source: tuple[str, ...] | None = None
    choices: ValidationChoices | None = None
    choice: str | None = None
    auto: tuple[ModeComparison, ...] = ()
    compression: Mapping[str, Any] = field(default_factory=dict)
    epochs: int | None = None
    losses: tuple[float, ...] = ()
    left_out: tuple[str, ...] = ()
    align: Mapping[str, float] = field(default_factory=dict)

    @property
    def way(self) -> str | None:
        """The name of the model: the winner of ``adapt_auto``, or the mode."""
        return self.choice or self.mode

    def to_json(self) -> dict[str, Any]:
        """Return the content for ``model.json``: the fields that are not empty."""
        content = {**asdict(self), "choices": self.choices and self.choices.to_json()}
        return {
            name: value for name, value in content.items() if name in _STATED or value not in _EMPTY
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Provenance:
        """Read what ``to_json`` wrote; keys of other versions are ignored.

        Raises ValueError, KeyError or TypeError if a part is missing or has another type.
        """
        if not isinstance(data, Mapping):
            raise TypeError("its provenance is not an object")
        for name in ("compression", "align"):
            if not isinstance(data.get(name, {}), Mapping):
                raise TypeError(f"{name} in its provenance is not an object")
        if missing := [name for name in _REQUIRED if name not in data]:
            raise ValueError(f"its provenance lacks {', '.join(missing)}")
        fields = {name: data[name] for name in cls.__dataclass_fields__ if name in data}
        source, choices = data.get("source"), data.get("choices")
        fields |= {
            "domains": _names(data["domains"]),
            "train": TrainConfig(**data["train"]),
            "source": None if source is None else _names(source),
            "choices": None if choices is None else ValidationChoices.from_json(choices),
            "auto": tuple(ModeComparison(**row) for row in data.get("auto", ())),
            "losses": tuple(data.get("losses", ())),
            "left_out": tuple(map(str, data.get("left_out", ()))),
        }
        return cls(**fields)


def _names(data: object) -> tuple[str, ...]:
    if not isinstance(data, list | tuple) or not all(isinstance(name, str) for name in data):
        raise ValueError(f"{data!r} is not a list of domains")
    return tuple(data)
