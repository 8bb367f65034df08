"""What ``convoy-coordinator run show`` tells of a candidate: its hold-out with and without each insurer, and the attacks on it."""

from __future__ import annotations

from convoy_coordinator.federation.evaluation import figures
from convoy_coordinator.runs.commands import lines
from convoy_models.holdout import Evaluation, Gain


def test_a_run_tells_what_is_left_without_each_insurer_and_what_the_attacks_said() -> None:
    """One line a party each; the figures are those of the evaluation."""
    gain, less = Gain(20.0, 2.0, 3.0), Gain(-4.0, 2.0, 3.0)
    found = Evaluation(
        together=gain, insurers=gain, carmaker=gain, deviance=1_000.0, claims=900.0, audited="age", levels=(),
        without={"did:web:a.example": gain, "did:web:b.example": less},
    )  # fmt: skip
    progress = {
        "evaluation": figures(found),
        "membership": {"did:web:a.example": "passed", "did:web:b.example": "not run"},
    }
    run = {"uid": "run-1", "state": "finished", "algorithm": "risk", "requester": "o", "progress": progress}
    told = lines(run)
    assert "Without    did:web:a.example's customers the gain is +2.0 points (+1.29 to +2.71, 95 %)" in told
    assert "Without    did:web:b.example's customers the gain is -0.4 points (-1.11 to +0.31, 95 %)" in told
    assert "Attack     did:web:a.example: membership inference passed" in told
    assert "Attack     did:web:b.example: membership inference not run" in told
