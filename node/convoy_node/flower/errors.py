"""What can go wrong between a node and Flower.

    FlowerError                  root of the adapter's errors
    ├── NodeHomeUnusable         a key or certificate is missing, open to others, or malformed
    ├── ActivationRefused        the SuperLink does not let this node in
    └── WorkerEnded              the process of the partner's application ended or did not start

Each carries code, cause and fix; none carries a secret or a row's value.
"""

from __future__ import annotations


class FlowerError(Exception):
    """Root of the adapter's errors."""

    code = "FLOWER"

    def __init__(self, cause: str, *, fix: str) -> None:
        super().__init__(f"{self.code}: {cause} Fix: {fix}")
        self.cause = cause
        self.fix = fix


class NodeHomeUnusable(FlowerError):
    """A key or certificate is missing, open to others, or malformed."""

    code = "NODE_HOME_UNUSABLE"


class ActivationRefused(FlowerError):
    """The SuperLink does not let this node in."""

    code = "ACTIVATION_REFUSED"


class WorkerEnded(FlowerError):
    """The process that runs the partner's application ended or did not start."""

    code = "WORKER_ENDED"
