"""Rivals of the joint model, none of them private: LightGBM local, averaged and pooled; a pooled GLM; GLM3.

They are trained in the same run, on the same learning rows, and judged like every other row. LightGBM
is needed by the bench only (``pip install lightgbm``); without it its rows are left out and said so.
"""

from __future__ import annotations

import importlib
import os
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
import numpy.typing as npt
from portfolio import Portfolio

from convoy_models.risk.tables import TableRows, ordered_tables

Floats = npt.NDArray[np.float64]
LEARNING_RATE, LEAVES, ROUNDS, PATIENCE = 0.1, 31, 400, 25
CAUTIOUS: dict[str, float] = {"learning_rate": 0.03, "num_leaves": 4, "lambda_l2": 5.0}
SMALL_ROWS = 50_000
"""Portfolios of fewer learning rows: the usual trees learn their noise, so a cautious setting is tried as well."""
FEWEST_ROWS = 200
GLM3 = "GLM3 (Wuethrich & Merz)"
_RIDGE = 1e-4


def has_lightgbm() -> bool:
    """Tell whether LightGBM is installed and finds its OpenMP library."""
    try:
        importlib.import_module("lightgbm")
    except (ImportError, OSError):
        return False
    return True


def matrix(portfolio: Portfolio) -> tuple[Floats, list[int]]:
    """Return all rating factors as (N, F) float64 and the places of the categorical ones."""
    names = portfolio.feature_names
    parts, named = [], []
    for place, name in enumerate(names):
        values = portfolio.columns[name]
        if values.dtype.kind in "iuf":
            parts.append(np.where(values.astype(np.float64) < -1e299, np.nan, values.astype(np.float64)))
        else:
            parts.append(np.unique(values.astype(np.str_), return_inverse=True)[1].astype(np.float64))
            named.append(place)
    return np.column_stack(parts), named


def boosted(portfolio: Portfolio, features: Floats, named: list[int], which: npt.NDArray[np.bool_]) -> Floats:
    """Return expected claims of all rows, (N,), from LightGBM on some learning rows.

    Stopped early on a tenth of them. In a small portfolio (``SMALL_ROWS``) setting and rounds are chosen by five folds instead,
    and all of them are learned from.
    """
    import lightgbm

    rows = np.flatnonzero(which)
    claims, years = portfolio.claims, portfolio.years
    if rows.size < FEWEST_ROWS or not claims[rows].any():
        return years * (claims[rows].sum() + 1) / (years[rows].sum() + 10)
    parameters = {
        "objective": "poisson", "learning_rate": LEARNING_RATE, "num_leaves": LEAVES, "seed": 1, "verbose": -1,
        "num_threads": int(os.environ.get("OMP_NUM_THREADS", "1")), "min_data_in_leaf": 20 if rows.size < 20_000 else 100,
        "deterministic": True,
    }  # fmt: skip

    def rows_of(part: npt.NDArray[np.int64], like: Any = None) -> Any:
        return lightgbm.Dataset(
            features[part], claims[part] / years[part], weight=years[part], categorical_feature=named, reference=like,
            params={"verbose": -1}, free_raw_data=False,
        )  # fmt: skip

    if portfolio.learn.sum() < SMALL_ROWS:
        setting, rounds = _chosen(parameters, rows_of(rows))
        model = lightgbm.train(setting, rows_of(rows), rounds)
    else:
        is_stop = np.random.default_rng(1).random(rows.size) < 0.1
        learned = rows_of(rows[~is_stop])
        stop = lightgbm.early_stopping(PATIENCE, verbose=False)
        model = lightgbm.train(
            parameters, learned, ROUNDS, valid_sets=[rows_of(rows[is_stop], learned)], callbacks=[stop]
        )
    return np.asarray(model.predict(features), dtype=np.float64) * years


def _chosen(parameters: dict[str, Any], learned: Any) -> tuple[dict[str, Any], int]:
    """Return setting and rounds with the lowest mean deviance over five folds: the usual one, or the cautious one."""
    import lightgbm

    found = []
    for setting, rounds in ((parameters, ROUNDS), (parameters | CAUTIOUS, 4 * ROUNDS)):
        stop = lightgbm.early_stopping(PATIENCE * rounds // ROUNDS, verbose=False)
        told = lightgbm.cv(setting, learned, rounds, nfold=5, stratified=False, seed=1, callbacks=[stop])
        scores = told["valid poisson-mean"]
        found.append((scores[-1], len(scores), setting))
    _, rounds, setting = min(found, key=lambda one: one[0])
    return setting, rounds


def pooled_glm(portfolio: Portfolio) -> Floats:
    """Return expected claims of all rows from an additive Poisson GLM on the public cells of every feature."""
    if portfolio.pairs is None:
        raise ValueError("a pooled GLM needs the features of the tables")
    rows = TableRows.build(portfolio.pairs, portfolio.columns, labelled=False)
    tables = [table for table in ordered_tables(portfolio.pairs) if len(table) == 1]
    cells = np.column_stack([rows.cells(table) for table in tables])
    widths = [int(cells[:, j].max()) + 1 for j in range(cells.shape[1])]
    starts = np.concatenate([[0], np.cumsum(widths)[:-1]])
    return _cell_glm(cells + starts, int(np.sum(widths)), portfolio)


def _cell_glm(cells: npt.NDArray[Any], width: int, portfolio: Portfolio) -> Floats:
    """Iteratively reweighted least squares with one-hot columns, by cell counts instead of a matrix."""
    claims, years, learn = portfolio.claims, portfolio.years, portfolio.learn
    mine, y, e = cells[learn], claims[learn], years[learn]
    weights = np.zeros(width)
    starts = cells.min(0)
    spans = [(int(start), int(end - start) + 1) for start, end in zip(starts, cells.max(0), strict=True)]
    level = float(np.log(y.sum() / e.sum()))
    for _ in range(8):
        mean = np.exp(np.clip(level + weights[mine].sum(1), -15, 5)) * e
        hessian = np.zeros((width, width))
        for j, k in combinations_with_replacement(range(mine.shape[1]), 2):
            (first, rows), (second, columns) = spans[j], spans[k]
            place = (mine[:, j] - first).astype(np.int64) * columns + (mine[:, k] - second)
            block = np.bincount(place, mean, rows * columns).reshape(rows, columns)
            hessian[first : first + rows, second : second + columns] += block
            if j != k:
                hessian[second : second + columns, first : first + rows] += block.T
        gradient = sum(np.bincount(mine[:, j], y - mean, width) for j in range(mine.shape[1]))
        weights += np.clip(np.linalg.solve(hessian + np.eye(width), gradient - weights), -1, 1)
    return np.asarray(np.exp(np.clip(level + weights[cells].sum(1), -15, 5)) * years)


def glm3(portfolio: Portfolio) -> Floats:
    """Return expected claims of all rows from GLM3 of Noll, Salzmann, Wuethrich (2020) on freMTPL2."""
    c = portfolio.columns
    age = c["DrivAge"].astype(np.float64)
    bonus = np.minimum(c["BonusMalus"].astype(np.float64), 150)
    vehicle = c["VehAge"].astype(np.float64)
    area = np.unique(c["Area"].astype(np.str_), return_inverse=True)[1].astype(np.float64)
    parts = [
        np.ones(age.size), area, bonus, np.log(c["Density"].astype(np.float64)), age, np.log(age),
        age**2, age**3, age**4, bonus * age, bonus * age**2, vehicle == 0, vehicle > 10,
    ]  # fmt: skip
    for values in (np.minimum(c["VehPower"].astype(np.float64), 9), c["VehBrand"], c["VehGas"], c["Region"]):
        levels = np.unique(values)
        parts += [values == level for level in levels[1:]]
    design = np.column_stack([np.asarray(part, dtype=np.float64) for part in parts])
    scale = np.maximum(design.std(0), 1e-12)
    centre = design.mean(0)
    scale[0], centre[0] = 1.0, 0.0
    design = (design - centre) / scale
    claims, years, learn = portfolio.claims, portfolio.years, portfolio.learn
    x, y, e = design[learn], claims[learn], years[learn]
    beta = np.zeros(design.shape[1])
    beta[0] = np.log(y.sum() / e.sum())
    for _ in range(9):
        mean = np.exp(np.clip(x @ beta, -15, 3)) * e
        beta += np.linalg.solve((x.T * mean) @ x + _RIDGE * np.eye(beta.size), x.T @ (y - mean))
    return np.asarray(np.exp(np.clip(design @ beta, -15, 3)) * years)


def has_glm3(portfolio: Portfolio) -> bool:
    """Tell whether the portfolio asks for GLM3 and has its nine columns."""
    nine = {"DrivAge", "BonusMalus", "VehAge", "Area", "Density", "VehPower", "VehBrand", "VehGas", "Region"}
    return "GLM3" in portfolio.rivals and nine <= set(portfolio.columns)
