"""A generated driver population with a known truth; nobody in it exists.

The truth (``reference/private_ml.md`` §10): two hidden traits - aggressiveness and distraction -
drive claims and are seen, with noise, by the carmaker only; distance, age, density, night driving
matter too; a part of the risk (log sd .35) is seen by nobody. Bonus-malus carries earlier claims.
Safer drivers consent a little more often, 60 % of the drivers own the carmaker's brand, 41 % have
OEM data and consent, 8 % also charge at the operator. Three insurers hold 60, 30 and 10 %.

Vectorised: 100,000 drivers take about a second. Everything follows from the seed and the size;
knots and bounds live in ``convoy_demo.specifications`` and are not computed from these data.
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
    has_oem: Bools
    has_charging: Bools
    traits: Floats

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
    km = np.clip(
        np.exp(rng.normal(2.45, 0.45, size) - 0.03 * (density - 4) + 0.05 * aggressive), 1, 60
    )
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
        + 0.20 * distraction_trait
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
        1.0 + 0.22 * earlier - 0.06 * np.clip((age - 20) / 4, 0, 8) + rng.normal(0, 0.05, size),
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
        "harsh_braking_100km": lognormal(0.75, 0.38, 0, 0.35, 15),
        "harsh_acceleration_100km": lognormal(0.75, 0.33, 0, 0.40, 15),
        "speeding_share": np.clip(0.08 + 0.035 * aggressive + rng.normal(0, 0.03, size), 0, 0.5),
        "night_share": night,
        "urban_share": urban,
        "distraction_100km": lognormal(0.4, 0, 0.45, 0.40, 12),
        "collision_warnings_1000km": lognormal(0.2, 0.25, 0.30, 0.40, 12),
    }
    owns_brand = rng.random(size) < 0.60
    consents = rng.random(size) < 1 / (1 + np.exp(-(0.75 - 0.15 * aggressive)))
    has_oem = owns_brand & consents
    has_charging = has_oem & is_electric & (rng.random(size) < 0.56)
    insurer = rng.choice(len(SHARES), size, p=SHARES)
    return Population(
        columns=columns,
        claims=claims.astype(np.int64),
        exposure_years=exposure,
        rate=rate,
        insurer=insurer.astype(np.int64),
        has_oem=has_oem,
        has_charging=has_charging,
        traits=np.column_stack([aggressive, distraction_trait]),
    )
