"""The log: one writer, checkpoints, cosignatures, proofs. See ``service`` and audit/SPEC.md."""

from convoy_coordinator.log.service import Cosigning, LogService

__all__ = ["Cosigning", "LogService"]
