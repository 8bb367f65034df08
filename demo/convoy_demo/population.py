"""A generated driver population with a known truth; nobody in it exists.

The truth (issue 2; ``reference/private_ml.md`` §10): two hidden traits - aggressiveness and
distraction - drive claims and are seen, with noise, by the carmaker only; distance, age, density
and night driving matter too; a part of the risk (log sd .35) is seen by nobody. Bonus-malus carries
three earlier years of claims, blurred, because ladders differ and forgive. Safer drivers consent a
little more often: 60 % of the drivers own the brand, 41 % have OEM data and consent to its use, 8 %
also charge at the operator and consent to that. Three insurers hold 60, 30 and 10 % of the drivers.

Charging histories: offers are sites, service packages and charging + insurance bundles. Taste is a
mixture of what the driving profile says and of what it does not; popularity is skewed. The world
(what drives what) is fixed; ``seed`` draws the people.

Vectorised: 100,000 drivers take a fraction of a second. Everything follows from size and seed.
Knots and bounds live in ``convoy_demo.specifications`` and are not computed from these data.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

INSURERS = ("insurer-a", "insurer-b", "insurer-c")
SHARES = (0.6, 0.3, 0.1)
LADDER_BLUR = 0.30
"""Sd of the bonus-malus level around what three years of claims say (a claim moves it by .22)."""
OEM_COLUMNS = (
    "km_1000", "harsh_braking_100km", "harsh_acceleration_100km", "speeding_share",
    "night_share", "urban_share", "distraction_100km", "collision_warnings_1000km",
)  # fmt: skip
INSURER_COLUMNS = (
    "driver_age", "licence_gap_years", "bonus_malus", "vehicle_power", "vehicle_age", "density_log",
    "declared_km_1000", "garage",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Population:
    """N drivers with everything anyone knows, and the truth. Arrays are (N,) unless said.

    ``rate`` is the true yearly claim rate; ``traits`` (N, 2) aggressiveness and distraction;
    ``has_oem`` and ``has_charging``
    mean: holds data and has consented.
    """

    columns: dict[str, npt.NDArray[np.generic]]
    claims: Ints
    exposure_years: Floats
    rate: Floats
    insurer: Ints
    owns_brand: Bools
    has_oem: Bools
    charges: Bools
    has_charging: Bools

    @property
    def size(self) -> int:
        """Number of drivers."""
        return int(self.claims.size)


def generate(size: int, seed: int) -> Population:
    """Generate a population.

    Args:
        size: number of drivers.
        seed: of numpy's PCG64; the same seed and size give the same drivers.
    """
    rng = np.random.default_rng([seed, 7001])
    distraction_trait = rng.normal(size=size)
    age = np.clip(rng.gamma(9, 5, size) + 2, 18, 88)
    is_young = age < 27
    aggressive = rng.normal(size=size) + 0.6 * is_young - 0.01 * (age - 45)

    licence_gap = np.clip(rng.exponential(2.0, size), 0, 12)
    density = np.clip(rng.gamma(2.5, 1.6, size), 0, 10)
    km = np.clip(np.exp(rng.normal(2.45, 0.45, size) - 0.03 * (density - 4) + 0.05 * aggressive), 1, 60)
    declared = np.clip(km * np.exp(rng.normal(-0.1, 0.35, size)), 1, 40)
    power = np.clip(rng.gamma(8, 0.85, size) + 0.4 * aggressive, 4, 15)
    vehicle_age = np.clip(rng.gamma(2.2, 3, size), 0, 20)
    has_garage = rng.random(size) < 0.55
    night = np.clip(rng.beta(2, 14, size) + 0.02 * aggressive + 0.03 * is_young, 0, 0.6)
    urban = np.clip(rng.beta(2, 3, size) * 0.5 + 0.05 * density, 0, 1)
    is_electric = rng.random(size) < 0.35
    runs_low = rng.normal(size=size) + 0.5 * aggressive  # on the last per cent
    unseen = rng.normal(0, 0.35, size)

    log_rate = (
        -2.62
        + 0.45 * (np.log(km) - 2.4)
        + 0.55 * is_young * np.clip((27 - age) / 9, 0, 1)
        + 0.15 * (age > 70)
        + 0.05 * (density - 4)
        + 0.012 * (power - 7)
        - 0.05 * has_garage
        + 0.01 * (vehicle_age - 6)
        + 0.26 * aggressive
        + 0.22 * distraction_trait
        + 2.2 * (night - 0.13)
        + 0.35 * (urban - 0.4)
        + 2.5 * is_young * (night - 0.13)  # across parties: no additive model can hold it
        + 0.08 * is_electric * runs_low
        + unseen
    )
    rate = np.exp(log_rate)
    exposure = rng.uniform(0.3, 1.0, size)
    earlier = rng.poisson(rate * 3)
    bonus_malus = np.clip(
        1.0 + 0.22 * earlier - 0.06 * np.clip((age - 20) / 4, 0, 8) + rng.normal(0, LADDER_BLUR, size),
        0.5,
        2.0,
    )
    claims = rng.poisson(rate * exposure)

    def lognormal(level: float, aggr: float, distr: float, noise: float, top: float) -> Floats:
        seen = level + aggr * aggressive + distr * distraction_trait + rng.normal(0, noise, size)
        return np.clip(np.exp(seen), 0, top)

    columns: dict[str, npt.NDArray[np.generic]] = {
        "driver_age": age,
        "licence_gap_years": licence_gap,
        "bonus_malus": bonus_malus,
        "vehicle_power": power,
        "vehicle_age": vehicle_age,
        "density_log": density,
        "declared_km_1000": declared,
        "garage": np.where(has_garage, "yes", "no"),
        "km_1000": km,
        "harsh_braking_100km": lognormal(0.75, 0.38, 0, 0.28, 15),
        "harsh_acceleration_100km": lognormal(0.75, 0.33, 0, 0.32, 15),
        "speeding_share": np.clip(0.08 + 0.035 * aggressive + rng.normal(0, 0.024, size), 0, 0.5),
        "night_share": night,
        "urban_share": urban,
        "distraction_100km": lognormal(0.4, 0, 0.45, 0.32, 12),
        "collision_warnings_1000km": lognormal(0.2, 0.25, 0.30, 0.32, 12),
    }
    owns_brand = rng.random(size) < 0.60
    consents = rng.random(size) < 1 / (1 + np.exp(-(0.75 - 0.15 * aggressive)))
    has_oem = owns_brand & consents
    charges = owns_brand & is_electric & (rng.random(size) < 0.70)
    has_charging = charges & has_oem & (rng.random(size) < 0.80)
    insurer = rng.choice(len(SHARES), size, p=SHARES)
    return Population(
        columns=columns,
        claims=claims.astype(np.int64),
        exposure_years=exposure,
        rate=rate,
        insurer=insurer.astype(np.int64),
        owns_brand=owns_brand,
        has_oem=has_oem,
        charges=charges,
        has_charging=has_charging,
    )


@dataclass(frozen=True, slots=True)
class Histories:
    """Charging customers and what they used.

    drivers: (U,) row numbers in the population, ascending; used: (U, items) the history as the
    operator holds it; held_out: (U,) one further item of each, for the leave-one-out test.
    """

    drivers: Ints
    used: Bools
    held_out: Ints


ITEMS = tuple(
    [f"site-{number:03d}" for number in range(1, 73)]
    + [f"package-{number:02d}" for number in range(1, 19)]
    + [f"bundle-{number:02d}" for number in range(1, 11)]
)
"""What can be recommended: 72 charging sites, 18 service packages, 10 charging + insurance
bundles."""
TASTES = 8
_WORLD = 20_261_124


def histories(population: Population, seed: int) -> Histories:
    """Generate the history of every charging customer, consenting or not.

    Taste is a vector of TASTES numbers: .55 x a fixed map of the driving profile + a standard
    normal of its own. A customer used 3 + Poisson(5) offers, drawn without replacement by taste and
    popularity (Gumbel top-k); one of them, at random, is held out.
    """
    world = np.random.default_rng(_WORLD)
    offers = world.normal(size=(len(ITEMS), TASTES))
    popularity = world.normal(0, 1.0, len(ITEMS))
    tilt = world.normal(size=(len(OEM_COLUMNS), TASTES)) * 0.55

    rng = np.random.default_rng([seed, 7002])
    drivers = np.flatnonzero(population.charges)
    taste = _profile(population)[drivers] @ tilt + rng.normal(size=(drivers.size, TASTES))
    wish = 1.1 * taste @ offers.T / np.sqrt(TASTES) + popularity
    wish += rng.gumbel(size=wish.shape)
    order = np.argsort(-wish, axis=1)
    count = np.minimum(3 + rng.poisson(5, drivers.size), 20)
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.arange(len(ITEMS))[None, :], axis=1)
    used = rank < count[:, None]
    held_out = order[np.arange(drivers.size), rng.integers(0, count)]
    used[np.arange(drivers.size), held_out] = False
    return Histories(drivers.astype(np.int64), used, held_out.astype(np.int64))


def _profile(population: Population) -> Floats:
    """Return the driving profile in rough standard units, (N, 8), clipped to +-2.5: part of the
    truth."""
    parts = []
    for name, (middle, spread, is_log) in _PROFILE_UNITS.items():
        value = population.columns[name].astype(np.float64)
        parts.append(((np.log(np.maximum(value, 1e-3)) if is_log else value) - middle) / spread)
    return np.clip(np.column_stack(parts), -2.5, 2.5)


_PROFILE_UNITS = {
    "km_1000": (2.45, 0.46, True),
    "harsh_braking_100km": (0.76, 0.53, True),
    "harsh_acceleration_100km": (0.76, 0.53, True),
    "speeding_share": (0.08, 0.045, False),
    "night_share": (0.125, 0.085, False),
    "urban_share": (0.39, 0.15, False),
    "distraction_100km": (0.40, 0.60, True),
    "collision_warnings_1000km": (0.20, 0.55, True),
}
