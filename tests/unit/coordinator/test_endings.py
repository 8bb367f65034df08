"""How a run ended reaches the log, however it was spelled."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from convoy_audit.entry import encode
from convoy_audit.events import RunFailed
from convoy_coordinator.runs.routes import NewState

WORDS = st.text(max_size=300)


@given(reason=WORDS, reasons=st.lists(WORDS, max_size=70), party=WORDS, cause=st.text(max_size=5000))
def test_every_ending_fits_the_event(reason: str, reasons: list[str], party: str, cause: str) -> None:
    """Any text gives codes and a party that the catalogue of events takes, or no ending at all."""
    state = NewState(state="failed", reason=reason, reasons=tuple(reasons), party=party, cause=cause)
    ending = state.ending()
    if ending is None:
        assert not reason
        assert not any(reasons)
        return
    digest = f"sha256:{'0' * 64}"
    event = RunFailed(at=datetime.now(UTC), run="run-1", contract=digest, party=ending.party, reasons=ending.reasons)
    assert encode(event)
    assert len(ending.cause or "") <= 4000
