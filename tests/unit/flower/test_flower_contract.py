"""What the adapter takes for granted of flwr's internals: a version that changes one of them fails here, by name."""

from __future__ import annotations

import flwr.superlink.main
import pytest
from fastapi import FastAPI
from flwr.app.metadata import validate_message_type
from flwr.supercore import heartbeat
from flwr.supercore.inflatable import inflatable_utils
from flwr.supernode import fleet_http_connection, start_client_internal

from convoy_coordinator.federation.flower import holding, http_grid, lean_paths, object_lane
from convoy_coordinator.federation.flower.app_bundle import APP_ID, app_bundle
from convoy_coordinator.federation.flower.link import LinkSettings, build, seed
from convoy_coordinator.federation.flower.link_home import DEFAULT_FEDERATION, LinkHome
from convoy_coordinator.federation.flower.membership import FileMembership, PartyFederations
from convoy_coordinator.federation.flower.pki import write_loopback_certificates
from convoy_node.flower.connection import Fleet
from convoy_node.flower.policy import PROTOCOL_ACTIONS


@pytest.fixture(scope="module")
def link(tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    """Flower's own application, built as the launcher builds it."""
    home = LinkHome(tmp_path_factory.mktemp("link"))
    write_loopback_certificates(home)
    home.create_secrets()
    home.write_membership({DEFAULT_FEDERATION: []})
    return build(home, LinkSettings(in_memory=True), FileMembership(home.membership_file))


def test_the_federation_manager_is_ours_and_the_hook_is_put_back(link: FastAPI) -> None:
    """Flower builds its state around our manager, and other code in this process is not affected."""
    state = link.state.linkstate_factory.state()
    assert isinstance(state.federation_manager, PartyFederations)
    assert flwr.superlink.main.get_federation_manager.__module__.startswith("flwr.")


def test_node_authentication_and_the_super_exec_secret_are_on(link: FastAPI) -> None:
    """Without them anyone who reaches a port is a node, or the server."""
    assert link.state.enable_supernode_auth is True
    assert link.state.superexec_auth_secret


def test_the_bundle_is_stored_under_its_hash_for_its_federation_only(link: FastAPI) -> None:
    """A run of another federation cannot be started with it."""
    bundle = app_bundle()
    seed(link, bundle, DEFAULT_FEDERATION)
    state = link.state.linkstate_factory.state()
    assert state.get_app(DEFAULT_FEDERATION, APP_ID, bundle.sha256).content == bundle.content
    assert state.get_app("@none/other", APP_ID, bundle.sha256) is None


def paths(link: FastAPI) -> set[str]:
    return set(link.openapi()["paths"])


def test_every_path_that_is_held_rung_or_shortened_is_a_path_of_flower(link: FastAPI) -> None:
    """A renamed path would be served slowly, and nobody would notice."""
    ours = set(holding.POLLS) | set(holding.RINGS) | set(object_lane._ROUTES)
    assert ours <= paths(link)


def test_only_named_layers_are_left_out(link: FastAPI) -> None:
    """Every layer that is left out exists (one of them in 1.41 only); a fleet path keeps authentication and event log."""
    layers = {layer.cls.__name__ for layer in link.user_middleware}
    assert layers >= lean_paths.CONTROL_ONLY | lean_paths.FLEET_ONLY
    assert layers >= lean_paths.TRACING or not any("Tracing" in layer for layer in layers)
    lean = lean_paths.LeanPaths(link)
    kept = {layer.cls.__name__ for layer in lean._fleet.user_middleware}
    assert {"NodeAuthMiddleware", "FleetEventLogMiddleware", "ProtobufTranslationMiddleware"} <= kept
    assert lean._stack({"type": "http", "path": "/v1/control/start-run"}) is link


def test_the_names_that_the_node_replaces_are_there() -> None:
    """The connection, its eight callables, the clock, the exit, and the backoff of pulls."""
    assert start_client_internal.http_request_response is (fleet_http_connection.http_request_response)
    assert callable(start_client_internal.time.sleep)
    assert callable(fleet_http_connection.flwr_exit)
    assert fleet_http_connection.HEARTBEAT_DEFAULT_INTERVAL == 30
    assert heartbeat.HEARTBEAT_DEFAULT_INTERVAL == 30
    assert "initial_backoff" in inflatable_utils.pull_objects.__kwdefaults__
    assert len(Fleet._fields) == 8


def test_the_grid_can_be_told_when_to_give_up() -> None:
    """Flower's own rule at 401 is to end the whole process; ours lets the run fail."""
    grid = http_grid.PromptGrid("127.0.0.1:1", b"", token="t")
    assert callable(grid._retry_invoker.should_giveup)
    grid.give_up_at_once()
    assert grid._retry_invoker.max_tries == 1


def test_the_policy_lets_in_exactly_what_the_node_answers() -> None:
    """Every action of the node's runtime is a message type of Flower that the policy accepts."""
    assert all(validate_message_type(f"query.{action}") for action in PROTOCOL_ACTIONS)
