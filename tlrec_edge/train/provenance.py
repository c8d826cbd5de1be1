"""Where a model comes from: its data, domains and hyperparameters, and what validation chose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from tlrec_edge.train.config import ScoreWeights, TrainConfig

_REQUIRED = ("kind", "domains", "train", "split_sha256")


@dataclass(frozen=True)
class ValidationChoices:
    """What validation chose; the model was fitted again with exactly these.

    ``penalty`` and ``own_penalty`` are the ridge penalties of the item-item weights, the second on the target's rows
    alone. ``half_life`` is in days, None if the bias does not fade. ``validation_ndcg`` is the NDCG@10 reached, None
    if no validation row was looked at.
    """

    epochs: int
    penalty: float
    own_penalty: float | None
    half_life: float | None
    score_weights: ScoreWeights
    validation_ndcg: float | None

    def to_json(self) -> dict[str, Any]:
        found = asdict(self)
        found["mix"] = found.pop("score_weights")
        found["validation_ndcg@10"] = found.pop("validation_ndcg")
        return found

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> ValidationChoices:
        """Raises KeyError or TypeError if a part is missing or unknown."""
        parts = dict(found)
        return cls(
            score_weights=ScoreWeights(**parts.pop("mix")),
            validation_ndcg=parts.pop("validation_ndcg@10"),
            **parts,
        )


@dataclass(frozen=True)
class ModeComparison:
    """One line of the table that made the choice: NDCG@10 on validation, and the lift over the target-only choice."""

    mode: str
    ndcg: float
    over: str
    lift: float
    se: float
    chosen: bool


@dataclass(frozen=True)
class Provenance:
    """Where a model comes from; a network in training has an empty one.

    ``kind`` is "source" (pretrained) or "target" (adapted), ``domains`` are those it was trained for. The hashes are
    of the dataset and of its split; old models and bundles lack the dataset's.

    Of a target model: the transfer ``mode``; the new-users ``fold`` held out, None if none was; the ``source`` domains
    it learned from besides its own, None if there are none; the ``choices`` of validation. If the mode was chosen by
    ``adapt_auto``, ``choice`` is the candidate that won (which may be a simplification of ``mode``) and ``auto`` the
    table that shows why. ``compression`` is the card that ``quantize.compress`` writes and a manifest repeats.

    Of a source model: the ``epochs`` trained and the loss of each. ``align`` holds what the alignment of source and
    target content reached, by the name of the measure.
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
    align: Mapping[str, float] = field(default_factory=dict)

    @property
    def way(self) -> str | None:
        """What to call the model: the winner of ``adapt_auto``, else its mode."""
        return self.choice or self.mode

    def to_json(self) -> dict[str, Any]:
        """Return what ``model.json`` holds: nothing that is empty, but ``fold`` and ``source``, where None says so."""
        found = {**asdict(self), "choices": self.choices and self.choices.to_json()}
        return {
            name: value
            for name, value in found.items()
            if name in ("fold", "source") or value not in (None, (), {})
        }

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Provenance:
        """Read what ``to_json`` wrote; keys of other versions are passed over.

        Raises ValueError, KeyError or TypeError if a part is missing or is not what it should be.
        """
        if not isinstance(found, Mapping):
            raise TypeError("its provenance is not an object")
        if wrong := [
            name
            for name in ("compression", "align")
            if not isinstance(found.get(name, {}), Mapping)
        ]:
            raise TypeError(f"{', '.join(wrong)} in its provenance is not an object")
        if missing := [name for name in _REQUIRED if name not in found]:
            raise ValueError(f"its provenance lacks {', '.join(missing)}")
        parts = {name: found[name] for name in cls.__dataclass_fields__ if name in found}
        source, choices = parts.get("source"), parts.get("choices")
        return cls(
            **{
                **parts,
                "domains": _names(parts["domains"]),
                "train": TrainConfig(**parts["train"]),
                "source": None if source is None else _names(source),
                "choices": None if choices is None else ValidationChoices.from_json(choices),
                "auto": tuple(ModeComparison(**line) for line in parts.get("auto", ())),
                "losses": tuple(parts.get("losses", ())),
            }
        )


def _names(found: object) -> tuple[str, ...]:
    if not isinstance(found, list | tuple) or not all(isinstance(name, str) for name in found):
        raise ValueError(f"{found!r} is not a list of domains")
    return tuple(found)
