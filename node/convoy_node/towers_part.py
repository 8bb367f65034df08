"""This node's part in a run of two towers (``recommend-towers/1``): own customers, aligned with nobody.

Torch is imported by the first run that needs it. Who is in a step, who is held out and which item is hidden is decided here
by coins; the coordinator sends public weights and learns masked, noisy sums, nothing about a sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from convoy_contracts.specification import TowersSpecification
from convoy_models.gates import each_confidence
from convoy_models.holdout import Word
from convoy_models.home_attack import Attack, attacked
from convoy_models.plan import PlannedQuery
from convoy_models.recommend import judged
from convoy_models.recommend.towers import TowersModel
from convoy_node import veto
from convoy_node.columns import HISTORY
from convoy_node.local_part import Floats, LocalPart, Rows, needing_torch

if TYPE_CHECKING:
    from convoy_models.neural.two_tower import Towers

VETO_CONFIDENCE = 0.95
"""How sure an operator is that its customers are better served by the general list when it vetoes."""


class TowersPart(LocalPart):
    """A charging operator's contribution: popularity, steps of DP-SGD, and the hold-out, as LOCAL sums.

    Args:
        spec: the signed specification.
        ids: local ids of everyone whose consent counts now, each once.
        table: the node's rows.

    Raises:
        ModelsError: columns that do not fit; every fault at once.
        ActionRefused: this node was installed without torch.
    """

    KIND = "two towers"

    def __init__(self, spec: TowersSpecification, ids: Sequence[str], table: Rows) -> None:
        with needing_torch():
            from convoy_models.neural.two_tower import Towers
        columns = table.columns(ids)
        self._spec = spec
        self._towers: Towers = Towers.build(spec, columns, columns[HISTORY])

    def local(self, query: PlannedQuery, weights: object) -> Floats:
        """Return own sum before noise: popularity, clipped gradients of a secret sample, or counts of the hold-out."""
        return self._towers.local_sum(query, weights)

    def try_candidate(self, candidate: object) -> str | None:
        """Return why this operator does not want the fitted model, tried on its own held-out customers, or None.

        Raises:
            ActionRefused: the arrays make no model of this specification.
        """
        model = self._model(candidate)
        counts = self._towers.counts(model.weights, model.popularity)
        if judged.word_of(counts, VETO_CONFIDENCE) == "worse":
            return "its lists are clearly worse than the general list."
        return None

    def attack(self, candidate: object) -> list[Attack]:
        """Attack the candidate with own customers: those trained on, and those whom the contract holds out."""
        return [attacked("all", *self._towers.membership(self._model(candidate).weights), self._spec)]

    def word(self, candidate: object, operators: int) -> Word:
        """Return this operator's verdict: the model against what it can do alone (item-item, without noise).

        Args:
            candidate: arrays of the model by name.
            operators: how many take part; they share the contract's confidence.

        Raises:
            ActionRefused: the arrays make no model of this specification.
        """
        counts = self._towers.own_counts(self._model(candidate).weights)
        return judged.word_of(counts, each_confidence(self._spec.test.confidenceMilli / 1000, operators))

    def _model(self, candidate: object) -> TowersModel:
        return veto.read_candidate(partial(TowersModel.from_arrays, self._spec), candidate)
