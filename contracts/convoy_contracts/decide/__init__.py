"""May this request be carried out? One pure, total function over one value (FORMAT.md).

``decide(world)`` reads nothing but ``world`` and never raises; what it cannot understand it refuses.
"""

from convoy_contracts.decide.decision import Decision, decide
from convoy_contracts.decide.reasons import REASONS, Reason

__all__ = ["REASONS", "Decision", "Reason", "decide"]
