"""Sums of clipped gradients, one gradient per person: Opacus' ghost clipping, without its noise and sampler.

Promise: ``ClippedSums.sum`` returns ``sum_i g_i min(1, clip / ||g_i||)`` over the rows it is given, so adding
or removing one row moves it by at most ``clip`` in L2 (unit: the row; a person has one row). All arithmetic is
float64: float32 sums would move in the other persons' digits. The clip that is applied is smaller by 2^-20,
more than all rounding.

Two ways to the same numbers (a test compares them):

* ``two-pass``: Opacus' own ghost clipping: one backward pass for the norms, one for the weighted sum. Any layer
  that Opacus knows.
* ``one-pass`` for networks of Linear layers, the default there: Opacus' norms from layer inputs and output gradients,
  and the sum from the same two, without a second backward pass ("book-keeping"). A step costs little more than one
  without privacy (``bench/dpsgd.py``).

The trap (opacus 1.6.0 too): a loss of shape ``(B, 1)`` makes ghost clipping multiply ``(B,)`` coefficients with
``(B, 1)`` losses into ``(B, B)``; every gradient is then scaled by the SUM of all coefficients and nothing is
clipped. It runs without a word. Here such a loss is refused (``LossShapeRefused``), and a test measures the trap.

Not used from Opacus: its noise (torch's generator) and its sampler. Noise is the node's own discrete Gaussian
under masks (``sums``), sampling is ``sampling``.

Sources: Abadi et al. 2016 (DP-SGD); Li, Tramer, Liang, Hashimoto 2021, arXiv:2110.05679 (ghost clipping); Bu, Wang,
Zha, Karypis 2022, arXiv:2210.00038 (book-keeping).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import torch
from opacus.grad_sample import GradSampleModuleFastGradientClipping
from torch import Tensor, nn

from convoy_models.errors import ShapeMismatch, ValueRefused
from convoy_models.fixedpoint import Floats

CHUNK: Final = 16_384
"""Rows in one pass: bounds memory, changes nothing else."""
ROOM: Final = 1 - 2.0**-20
_TINY: Final = 1e-6
"""Opacus adds this to norms."""

Rows = npt.NDArray[np.int64]
Losses = Callable[[nn.Module, Rows], Tensor]
"""(network, row numbers) -> one loss per row, shape (B,)."""
Way = Literal["one-pass", "two-pass"]


class LossShapeRefused(ShapeMismatch):
    """Losses that are not one number per person; ghost clipping would silently clip nothing."""

    code = "LOSS_SHAPE_REFUSED"
    fix = "Return losses of shape (B,), not (B, 1): squeeze the last axis."
    fix_zh = "损失的形状应为 (B,)，而非 (B, 1)：请去掉最后一维。"


class ClippedSums:
    """A network whose clipped gradient sums can be asked.

    Args:
        network: layers that Opacus knows norms of; no BatchNorm, no layer used twice. It is turned to float64
            and its weights are replaced at every call. Every layer sees one row per person.
        clip: L2 bound of one row's gradient.
        way: see the module; by default one-pass where all layers with weights are Linear.

    Raises:
        ValueRefused: a clip that is not positive and finite, or one-pass for a network with other layers.
    """

    def __init__(self, network: nn.Module, clip: float, way: Way | None = None) -> None:
        if not (math.isfinite(clip) and clip > 0):
            raise ValueRefused("a clip must be positive and finite.")
        self._network = network.double()
        self._clip = clip * ROOM
        self._parameters = [p for p in network.parameters() if p.requires_grad]
        layers = [m for m in network.modules() if any(p.requires_grad for p in m.parameters(recurse=False))]
        linear = [layer for layer in layers if isinstance(layer, nn.Linear)]
        is_linear = len(linear) == len(layers)
        self.way: Way = way or ("one-pass" if is_linear else "two-pass")
        if self.way == "one-pass" and not is_linear:
            raise ValueRefused("one-pass needs a network of Linear layers.")
        self._wrapped: Any = None
        self._seen: dict[nn.Linear, tuple[Tensor, Tensor]] = {}
        if self.way == "one-pass":
            for layer in linear:
                layer.register_forward_hook(self._see)
        else:
            self._wrapped = GradSampleModuleFastGradientClipping(
                self._network, loss_reduction="sum", max_grad_norm=self._clip, use_ghost_clipping=True
            )
        self._network.train()

    @property
    def size(self) -> int:
        """How many weights."""
        return sum(p.numel() for p in self._parameters)

    def load(self, weights: Floats) -> None:
        """Set the weights, (size,), in the order of ``network.parameters()``.

        Raises:
            ShapeMismatch: another number of weights.
        """
        if weights.shape != (self.size,):
            raise ShapeMismatch(f"the network has {self.size} weights, not {weights.size}.")
        values, place = torch.from_numpy(np.array(weights, dtype=np.float64)), 0
        with torch.no_grad():
            for parameter in self._parameters:
                parameter.copy_(values[place : place + parameter.numel()].view_as(parameter))
                place += parameter.numel()

    def weights(self) -> Floats:
        """Return the present weights, (size,)."""
        return np.asarray(torch.cat([p.detach().reshape(-1) for p in self._parameters]).numpy(), dtype=np.float64)

    def sum(self, weights: Floats, rows: Rows, losses: Losses) -> Floats:
        """Return the sum of clipped gradients of the losses of some rows, (size,).

        Args:
            weights: where, (size,).
            rows: (B,) row numbers, given back to ``losses`` in chunks; none gives zeros.
            losses: each row's own loss; must not mix rows.

        Raises:
            LossShapeRefused: losses that are not (B,).
            ShapeMismatch: another number of weights.
            ValueRefused: a gradient that is not finite.
        """
        self.load(weights)
        total = torch.zeros(self.size, dtype=torch.float64)
        chunk = self._one_pass if self.way == "one-pass" else self._two_pass
        for start in range(0, rows.size, CHUNK):
            total += chunk(rows[start : start + CHUNK], losses)
        found = total.numpy()
        if not np.isfinite(found).all():
            raise ValueRefused("a gradient is not finite.")
        return np.asarray(found, dtype=np.float64)

    # Ways ----------------------------------------------------------------------------------------------------------------

    def _one_pass(self, rows: Rows, losses: Losses) -> Tensor:
        self._seen.clear()
        made = _checked(losses(self._network, rows), rows)
        seen = list(self._seen.items())
        slopes = torch.autograd.grad(made.sum(), [output for _, (_, output) in seen])
        norm2 = torch.zeros(rows.size, dtype=torch.float64)
        for (layer, (given, _)), slope in zip(seen, slopes, strict=True):
            # A weight's gradient is slope x input, so its norm is the product of both; the bias has input 1.
            inputs = torch.linalg.vector_norm(given, dim=1).square()
            norm2 += torch.linalg.vector_norm(slope, dim=1).square() * (inputs + (layer.bias is not None))
        scale = (self._clip / (norm2.sqrt() + _TINY)).clamp(max=1.0)[:, None]
        found: dict[Tensor, Tensor] = {}
        for (layer, (given, _)), slope in zip(seen, slopes, strict=True):
            clipped = scale * slope
            found[layer.weight] = clipped.T @ given
            if layer.bias is not None:
                found[layer.bias] = clipped.sum(0)
        self._seen.clear()
        return torch.cat([found[p].reshape(-1) if p in found else torch.zeros(p.numel()) for p in self._parameters])

    def _see(self, layer: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
        if not torch.is_grad_enabled() or not isinstance(layer, nn.Linear):
            return
        if layer in self._seen or given[0].dim() != 2:
            raise ValueRefused("a layer is used twice, or has more than one row per person.")
        self._seen[layer] = (given[0].detach(), output)

    def _two_pass(self, rows: Rows, losses: Losses) -> Tensor:
        for layer in self._network.modules():  # what a refused call has left behind
            layer.__dict__.pop("activations", None)
            layer.__dict__.pop("max_batch_len", None)
        for parameter in self._parameters:
            vars(parameter)["_forward_counter"] = 0
        made = _checked(losses(self._wrapped, rows), rows)
        self._clear()
        torch.autograd.backward(made.sum(), retain_graph=True)  # hooks take the norm of every row's gradient
        self._clear()
        scale = self._wrapped.get_clipping_coef().detach()
        self._wrapped.disable_hooks()
        try:
            torch.autograd.backward((scale * made).sum())
        finally:
            self._wrapped.enable_hooks()
        return torch.cat([torch.zeros(p.numel()) if p.grad is None else p.grad.reshape(-1) for p in self._parameters])

    def _clear(self) -> None:
        for parameter in self._parameters:
            parameter.grad = None


def _checked(made: Tensor, rows: Rows) -> Tensor:
    if made.shape != (rows.size,):
        raise LossShapeRefused(f"losses of {rows.size} rows have shape {tuple(made.shape)}.")
    return made
