"""Sums of clipped gradients: the right numbers by both ways, the trap of (B, 1) losses, no row beyond the clip."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from opacus.grad_sample import GradSampleModuleFastGradientClipping
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from convoy_models.errors import ShapeMismatch, ValueRefused
from convoy_models.neural.clipped import ClippedSums, LossShapeRefused, Rows
from convoy_models.neural.sampling import SecretCoins

ROWS, WIDTH = 300, 6


class Net(nn.Module):
    """A small network with (B,) outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(WIDTH, 5), nn.Linear(5, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B,)."""
        made: Tensor = self.last(torch.tanh(self.first(x)))[:, 0]
        return made


@pytest.fixture
def data() -> tuple[Tensor, Tensor]:
    """Return inputs and counts; some rows have large gradients."""
    rng = np.random.default_rng(5)
    x = rng.normal(size=(ROWS, WIDTH)) * rng.exponential(1.0, size=(ROWS, 1))
    return torch.from_numpy(x), torch.from_numpy(rng.poisson(0.3, ROWS).astype(float))


def _losses(x: Tensor, y: Tensor):  # type: ignore[no-untyped-def]
    def of(net: nn.Module, rows: Rows) -> Tensor:
        score = net(x[torch.from_numpy(rows)])
        return torch.exp(score) - y[torch.from_numpy(rows)] * score

    return of


def _by_row(net: Net, x: Tensor, y: Tensor) -> np.ndarray:
    """Return every row's gradient, (B, size), by torch.func: nothing of Opacus."""
    values = {name: p.detach() for name, p in net.named_parameters()}

    def loss(parameters: dict[str, Tensor], row: Tensor, count: Tensor) -> Tensor:
        score = functional_call(net, parameters, (row[None],))[0]
        return torch.exp(score) - count * score

    made = vmap(grad(loss), in_dims=(None, 0, 0))(values, x, y)
    return np.concatenate([made[name].reshape(len(x), -1).numpy() for name in values], axis=1)


@pytest.mark.parametrize("way", ["one-pass", "two-pass"])
@pytest.mark.parametrize("clip", [0.3, 2.0, 1e6])
def test_the_sum_is_that_of_gradients_clipped_one_by_one(data: tuple[Tensor, Tensor], way: str, clip: float) -> None:
    """Against torch.func row by row, in chunks that do not divide the rows; some rows are cut unless the clip is a million."""
    x, y = data
    net = Net().double()
    plain = _by_row(copy.deepcopy(net), x, y)
    sums = ClippedSums(net, clip, way)  # type: ignore[arg-type]
    weights = sums.weights()
    norms = np.linalg.norm(plain, axis=1)
    assert clip > 2 or (norms > clip).sum() >= 5
    wanted = (plain * np.minimum(1, clip / norms)[:, None]).sum(axis=0)
    made = sums.sum(weights, np.arange(ROWS), _losses(x, y))
    np.testing.assert_allclose(made, wanted, rtol=2e-5, atol=1e-5)
    again = sums.sum(weights, np.arange(ROWS), _losses(x, y))
    np.testing.assert_array_equal(made, again)


def test_no_row_moves_the_sum_by_more_than_the_clip(data: tuple[Tensor, Tensor]) -> None:
    """Also a row with inputs of a thousand: the bound that sigma rests on."""
    x, y = data
    wild = torch.cat([x, torch.full((1, WIDTH), 1e3, dtype=torch.float64)])
    counts = torch.cat([y, torch.tensor([50.0], dtype=torch.float64)])
    for way in ("one-pass", "two-pass"):
        sums = ClippedSums(Net(), 0.5, way)  # type: ignore[arg-type]
        weights = 0.1 * sums.weights()
        with_it = sums.sum(weights, np.arange(ROWS + 1), _losses(wild, counts))
        without = sums.sum(weights, np.arange(ROWS), _losses(wild, counts))
        moved = float(np.linalg.norm(with_it - without))
        assert 0.49 < moved <= 0.5


def test_losses_with_a_second_axis_are_refused(data: tuple[Tensor, Tensor]) -> None:
    """(B, 1) is what a Linear layer returns; both ways refuse it, and a scalar too."""
    x, y = data
    for way in ("one-pass", "two-pass"):
        sums = ClippedSums(Net(), 1.0, way)  # type: ignore[arg-type]
        for shape in ((-1, 1), (1, -1)):
            with pytest.raises(LossShapeRefused, match="shape"):
                sums.sum(sums.weights(), np.arange(20), lambda net, rows, s=shape: _losses(x, y)(net, rows).reshape(s))
        with pytest.raises(LossShapeRefused):
            sums.sum(sums.weights(), np.arange(20), lambda net, rows: _losses(x, y)(net, rows).mean())


def test_the_trap_is_real_in_the_opacus_that_is_installed(data: tuple[Tensor, Tensor]) -> None:
    """Opacus' own recipe on (B, 1) losses: no error, and one row moves the sum by hundreds of clips."""
    x, y = data
    clip = 0.01

    def recipe(rows: slice) -> np.ndarray:
        torch.manual_seed(1)
        net = Net().double()
        wrapped = GradSampleModuleFastGradientClipping(net, loss_reduction="sum", max_grad_norm=clip)
        score = wrapped(x[rows])
        losses = (torch.exp(score) - y[rows] * score)[:, None]
        losses.sum().backward(retain_graph=True)
        net.zero_grad()
        coefficients = wrapped.get_clipping_coef()
        wrapped.disable_hooks()
        (coefficients * losses).sum().backward()
        return np.concatenate([p.grad.numpy().ravel() for p in net.parameters() if p.grad is not None])

    moved = np.linalg.norm(recipe(slice(0, ROWS)) - recipe(slice(0, ROWS - 1)))
    assert moved > 10 * clip


def test_an_empty_sample_gives_zeros_and_wrong_weights_are_refused(data: tuple[Tensor, Tensor]) -> None:
    """A Poisson sample may be empty; it must look like any other answer."""
    x, y = data
    sums = ClippedSums(Net(), 1.0)
    assert sums.way == "one-pass"
    assert not sums.sum(sums.weights(), np.arange(0), _losses(x, y)).any()
    with pytest.raises(ShapeMismatch):
        sums.sum(np.zeros(3), np.arange(5), _losses(x, y))
    with pytest.raises(ValueRefused):
        ClippedSums(Net(), 0.0)
    with pytest.raises(ValueRefused, match="finite"):
        sums.sum(sums.weights(), np.arange(5), _losses(x * float("nan"), y))


def test_a_network_with_other_layers_goes_the_opacus_way() -> None:
    """LayerNorm is known to Opacus; one-pass is refused for it."""
    net = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 1), nn.Flatten(0))
    assert ClippedSums(net, 1.0).way == "two-pass"
    with pytest.raises(ValueRefused):
        ClippedSums(nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4)), 1.0, "one-pass")


def test_secret_coins_fall_at_the_stated_rate() -> None:
    """200,000 coins at 30 %: within five standard deviations; rate 1 takes everybody, rate 0 is refused."""
    coins = SecretCoins()
    share = coins.throw(200_000, 300_000).mean()
    assert abs(share - 0.3) < 5 * np.sqrt(0.21 / 200_000)
    assert coins.throw(10, 1_000_000).all()
    assert not np.array_equal(coins.throw(1000, 500_000), coins.throw(1000, 500_000))
    for rate in (0, 1_000_001):
        with pytest.raises(ValueRefused):
            coins.throw(10, rate)
