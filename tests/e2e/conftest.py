"""A small federation, founded as the demo founds its own: real coordinator, nodes, keys, contracts, ledgers, log."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from convoy_demo import agreements, founding, runtimes
from convoy_demo.api import Api
from convoy_demo.places import Places
from convoy_demo.run import ALGORITHMS, ENDED, REQUESTERS
from convoy_demo.runtimes import Runtime
from convoy_demo.scenario import Scenario
from convoy_demo.specifications import recommend_specification, risk_specification
from convoy_models.noise import NoiseSource

SMALL = Scenario(
    drivers=6_000,
    seed=5,
    risk=risk_specification().model_copy(update={"cohortFloor": 1_000}),
    offers=recommend_specification().model_copy(update={"cohortFloor": 100}),
    min_subjects=50,
)


@dataclass
class Small:
    """A founded federation whose coordinator answers; nodes run inside ``embedded`` or ``deployed``."""

    places: Places
    scenario: Scenario
    api: Api
    contracts: dict[str, str]

    @contextlib.contextmanager
    def embedded(self, noise: Callable[[str], NoiseSource] | None = None) -> Iterator[Runtime]:
        """Run every node in this process."""
        with runtimes.embedded(self.places, self.api.url, noise=noise) as runtime:
            yield runtime

    @contextlib.contextmanager
    def deployed(self, client_app: str = runtimes.CLIENT_APP) -> Iterator[Runtime]:
        """Run every node as real processes under a real SuperLink."""
        with runtimes.superlink(self.places, self.api.url, client_app=client_app) as runtime:
            yield runtime

    def queue(self, kind: str = agreements.RISK, **changes: Any) -> str:
        """Ask for a run; return its uid."""
        order = {
            "contractDigest": self.contracts[kind],
            "algorithm": ALGORITHMS[kind],
            "requester": REQUESTERS[kind],
            "purpose": agreements.PURPOSES[kind],
        }
        return str(self.api.post("/v1/runs", order | changes)["uid"])

    def train(
        self, runtime: Runtime, kind: str = agreements.RISK, limit_s: float = 240, **changes: Any
    ) -> dict[str, Any]:
        """Queue a run, have it carried out, wait until it has ended; return the coordinator's record."""
        uid = self.queue(kind, **changes)
        runtime.start(uid)
        return self.ended(uid, limit_s)

    def ended(self, uid: str, limit_s: float = 240) -> dict[str, Any]:
        """Wait until a run has ended."""
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline:
            run = self.api.get(f"/v1/runs/{uid}")
            if run["state"] in ENDED:
                return dict(run)
            time.sleep(0.1)
        raise AssertionError(f"run {uid} did not end within {limit_s} s: {run}")


@contextlib.contextmanager
def small_federation(folder: Path, scenario: Scenario = SMALL) -> Iterator[Small]:
    """Found a federation in a folder and serve its coordinator."""
    places = Places(folder, "test")
    founding.found_coordinator(places, runtimes.free_port())
    with runtimes.coordinator_thread(places.coordinator) as url:
        api = Api(url, places.coordinator / "keys")
        api.wait_ready(30)
        founding.found(places, scenario, api, lambda _: None)
        contracts = {row["uid"]: row["digest"] for row in api.get("/v1/contracts")["contracts"]}
        yield Small(places, scenario, api, {name: contracts[uid] for name, uid in agreements.UIDS.items()})
        api.close()


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Small]:
    """A fresh small federation."""
    with small_federation(tmp_path) as federation:
        yield federation


@pytest.fixture(scope="session")
def found_small() -> Callable[..., contextlib.AbstractContextManager[Small]]:
    """Found a small federation in a folder of the test's choice, for tests that stop its coordinator."""
    return small_federation
