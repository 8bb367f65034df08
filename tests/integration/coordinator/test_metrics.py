"""``/metrics`` of a real coordinator."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from convoy_coordinator.testing import Federation


def test_the_metrics_are_the_coordinators_own_numbers(federation: Federation) -> None:
    """Prometheus's own parser reads them; they agree with the API."""
    text = federation.client.get("/metrics").text
    families = {family.name: family for family in text_string_to_metric_families(text)}
    parties = federation.client.get("/v1/parties").json()["parties"]
    assert families["convoy_parties"].samples[0].value == len(parties)
    assert families["convoy_log_entries"].samples[0].value == len(parties)  # one entry an enrolment
    assert {s.labels["party"] for s in families["convoy_witness_entries"].samples} <= {p["id"] for p in parties}
