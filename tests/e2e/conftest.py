"""A small federation, founded as the demo founds its own: real coordinator, nodes, keys, contracts, ledgers, log."""

from __future__ import annotations

import contextlib
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from convoy_demo import agreements, founding, runtimes
from convoy_demo.api import Api
from convoy_demo.places import Places
from convoy_demo.ports import free_port
from convoy_demo.run import ALGORITHMS, ENDED, REQUESTERS
from convoy_demo.runtimes import Runtime
from convoy_demo.scenario import Scenario
from convoy_demo.specifications import recommend_specification, risk_specification
from convoy_models.noise import NoiseSource

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

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
    founding.found_coordinator(places, free_port())
    with served(places) as api:
        founding.found(places, scenario, api, lambda _: None)
        yield small_of(places, scenario, api)


@contextlib.contextmanager
def served(places: Places) -> Iterator[Api]:
    """Serve a coordinator from a thread."""
    with (
        runtimes.coordinator_thread(places.coordinator) as url,
        contextlib.closing(Api(url, places.coordinator / "keys")) as api,
    ):
        api.wait_ready(30)
        yield api


def small_of(places: Places, scenario: Scenario, api: Api) -> Small:
    """Return the federation that was founded there."""
    contracts = {row["uid"]: row["digest"] for row in api.get("/v1/contracts")["contracts"]}
    return Small(places, scenario, api, {name: contracts[uid] for name, uid in agreements.UIDS.items()})


@pytest.fixture(scope="session")
def founded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small federation that was founded once and never ran; tests copy it."""
    folder = tmp_path_factory.mktemp("founded")
    with small_federation(folder):
        return folder


@pytest.fixture
def small(tmp_path: Path, founded: Path) -> Iterator[Small]:
    """A fresh small federation: a copy of the founded one, on a port of its own."""
    shutil.copytree(founded, tmp_path, dirs_exist_ok=True)
    places = Places(tmp_path, "test")
    settings = places.coordinator / "coordinator.toml"
    settings.write_text(
        re.sub(r"(?m)^port = \d+$", f"port = {free_port()}", settings.read_text(encoding="utf-8")),
        encoding="utf-8",
    )
    with served(places) as api:
        yield small_of(places, SMALL, api)


@pytest.fixture(scope="session")
def found_small() -> Callable[..., contextlib.AbstractContextManager[Small]]:
    """Found a small federation in a folder of the test's choice, for tests that stop its coordinator."""
    return small_federation
