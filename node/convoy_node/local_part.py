"""What the parts of runs without common rows share: every holder sums over its own persons, nobody is aligned."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from convoy_models.plan import PlannedQuery
from convoy_node.errors import ActionRefused

Floats = npt.NDArray[np.float64]


class Rows(Protocol):
    """The rows of one party by person."""

    def columns(self, local_ids: Sequence[str]) -> Mapping[str, Any]:
        """Return the columns of these persons, in this order."""


class LocalPart:
    """A part that answers LOCAL sums only."""

    KIND: ClassVar[str]
    """What the run trains, in a refusal's words."""

    @property
    def links(self) -> Mapping[str, list[bytes]]:
        """Nobody is aligned with anybody."""
        return {}

    def aligned(self, peer: str, rows: npt.NDArray[np.int64]) -> Floats | None:
        """Refuse: such a run has no common rows."""
        raise ActionRefused(f"a run of {self.KIND} aligns no rows.", code="QUERY_WITHOUT_PART")

    def factors(self, query: PlannedQuery, weights: object) -> tuple[dict[str, Floats], float]:
        """Refuse: LOCAL sums have no factors."""
        raise ActionRefused(f"query {query.id} has no factors.", code="QUERY_WITHOUT_PART")

    def vectors(self, query: PlannedQuery) -> tuple[dict[str, Floats], float]:
        """Refuse: LOCAL sums have no vectors."""
        raise ActionRefused(f"query {query.id} has no vectors.", code="QUERY_WITHOUT_PART")


@contextmanager
def needing_torch() -> Iterator[None]:
    """Refuse a run that trains a network where torch is not installed."""
    try:
        yield
    except ImportError as error:
        raise ActionRefused(
            "this run trains a network and this node has no torch.",
            code="NEURAL_MISSING",
            fix="pip install 'convoy-models[neural]', then start the node again.",
        ) from error
