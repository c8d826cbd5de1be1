"""The export on one page: from a trained model to a bundle that passed its gates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tlrec_edge.bundle.ids import is_user_key
from tlrec_edge.bundle.writer import BUNDLE
from tlrec_edge.core.folders import check_target, staging_folder
from tlrec_edge.data.dataset import Dataset
from tlrec_edge.train.edge_model import EdgeModel

from .gates import GATES, Evidence, check_gates
from .items import add_graphs, item_contents
from .parity import Parity, measure_parity
from .search_index import add_search_index
from .source import ExportSource
from .users import add_users


@dataclass(frozen=True)
class ExportConfig:
    """How to export a model.

    Attributes:
        with_users: Store the states of the target's users under ``"hashed"`` (keyed hashes) or
            ``"plain"`` ids. None, the default, stores none: a bundle then holds no personal data.
        all_users: Also store users who are known from other domains only. False by default: they
            may be many times more, and each takes about as much space as one of the target's.
        user_key: Key of hashed user ids, in hex, which the bundle does not hold: a service opens it
            with ``user_key``. None, the default, draws a key that the manifest holds.
        tolerance: Largest difference of a score from the torch model's that the parity gate
            accepts, in units of the score. The default, 1e-4, is above the rounding differences
            of float32 sums, and below differences that change a ranking.
        seed: Seed of the sample of users that scales and the search index are fitted to and parity
            is measured on. Fixed by default, so that the same model gives the same bundle.
        gates: Names of the gates to check, in order. All of ``GATES`` by default.
        allow: Names of gates that are allowed to fail; the manifest says which did, and why.
            None by default.

    Raises:
        ValueError: If ``with_users`` or the name of a gate is not known, ``all_users`` is set
            without ``with_users``, or ``user_key`` is not a key, or has no hashes to be used for.
    """

    with_users: str | None = None
    all_users: bool = field(default=False, kw_only=True)
    user_key: str | None = field(default=None, repr=False, kw_only=True)
    tolerance: float = 1e-4
    seed: int = 0
    gates: tuple[str, ...] = tuple(GATES)
    allow: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.with_users not in (None, "hashed", "plain"):
            found = repr(self.with_users)
            raise ValueError(f"with_users must be None, 'hashed' or 'plain', not {found}")
        if self.all_users and self.with_users is None:
            raise ValueError("all_users needs with_users='hashed' or 'plain'")
        if self.user_key is not None and self.with_users != "hashed":
            raise ValueError("user_key needs with_users='hashed': only hashes have a key")
        if self.user_key is not None and not is_user_key(self.user_key):
            raise ValueError("user_key must be 32 to 128 hexadecimal digits")
        for name in (*self.gates, *self.allow):
            if name not in GATES:
                raise ValueError(f"unknown gate {name!r}; choose from {', '.join(GATES)}")


def export_bundle(
    model: EdgeModel,
    dataset: Dataset,
    path: Path,
    config: ExportConfig | None = None,
    cards: Mapping[str, Any] | None = None,
) -> Parity:
    """Write a model as a bundle, if the bundle passes its gates.

    An older bundle at ``path`` is replaced in one step, and only after the new one has passed.

    Args:
        model: The model, adapted to its target.
        dataset: The dataset that the model was adapted to; its interactions are the histories.
        path: Folder of the bundle: a new one, an empty one or an older bundle.
        config: Stored users, tolerance and gates. None means ``ExportConfig()``.
        cards: ``quality`` and ``transfer`` of the manifest, as measured by
            ``tlrec_edge.evaluation.cards``. Without them the manifest says "not measured".

    Returns:
        How much the bundle's scores differ from the torch model's.

    Raises:
        ExportError: If a gate fails that ``config.allow`` does not name. Nothing is written then.
        BundleError: If ``path`` is not writable, or holds anything but a bundle.
        ModelError: If the model lacks a candidate of the dataset.
    """
    config, cards, path = config or ExportConfig(), cards or {}, Path(path)
    check_target(path, BUNDLE)  # before hours of work, not after
    source = ExportSource.of(model, dataset, config.seed)

    contents = item_contents(source, cards)
    contents = add_graphs(contents, source)
    if config.with_users:
        users = source.known_users if config.all_users else source.target_users
        contents = add_users(contents, source, users, config.with_users, config.user_key)
    contents = add_search_index(contents, source)

    with staging_folder(path, BUNDLE) as staging:
        bundle = staging / "bundle"
        contents.write(bundle)
        parity = measure_parity(source, bundle)
        evidence = _evidence(source, bundle, parity, config, cards)
        results = check_gates(evidence, config.gates, config.allow)

    # What was measured, and which gates passed, had nothing to look at or were waived.
    proof = {"parity": asdict(parity), "gates": results.to_json()}
    contents.with_entries(manifest=proof).write(path)
    return parity


def _evidence(
    source: ExportSource,
    bundle: Path,
    parity: Parity,
    config: ExportConfig,
    cards: Mapping[str, Any],
) -> Evidence:
    return Evidence(
        bundle=bundle,
        histories=source.histories(source.parity_users),
        candidates=source.candidate_names,
        parity=parity,
        tolerance=config.tolerance,
        cards=cards,
        compression=dict(source.model.provenance.compression),
    )
