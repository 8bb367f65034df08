"""A refusal over HTTP leads to its page; page, document and catalogue say the same, in both languages."""

from __future__ import annotations

from convoy_contracts.problems import PROBLEMS
from convoy_coordinator.testing import Federation


def test_the_type_of_a_refusal_leads_to_its_page_in_both_languages(federation: Federation) -> None:
    """RFC 9457: ``type`` can be opened, and says what the document says."""
    for language, word in (("en", "What to do"), ("zh", "处理方法")):
        refusal = federation.client.get("/v1/runs/nowhere", headers={"Accept-Language": language})
        told = refusal.json()
        assert refusal.headers["content-type"] == "application/problem+json"
        assert (told["code"], told["status"]) == ("RUN_UNKNOWN", refusal.status_code)
        page = federation.client.get(told["type"], params={"lang": language}, headers={"Accept": "text/html"})
        assert page.status_code == 200
        assert told["title"] in page.text
        assert told["fix"] in page.text.replace("&#x27;", "'")
        assert word in page.text
        assert "script" not in page.text


def test_a_page_comes_as_json_for_programs(federation: Federation) -> None:
    """The same facts, and the gRPC status that the partner channel would use."""
    found = federation.client.get("/problems/TICKET_USED", headers={"Accept": "application/json"}).json()
    entry = PROBLEMS["TICKET_USED"]
    assert (found["status"], found["grpc"], found["fix"]) == (409, "FAILED_PRECONDITION", entry.fix)
    listed = federation.client.get("/problems", headers={"Accept": "application/json"}).json()
    assert {item["code"] for item in listed} == set(PROBLEMS)
    assert "TICKET_USED" in federation.client.get("/problems").text


def test_an_unknown_problem_is_a_problem(federation: Federation) -> None:
    """404 with the code NOT_FOUND."""
    answer = federation.client.get("/problems/NO_SUCH_THING")
    assert (answer.status_code, answer.json()["code"]) == (404, "NOT_FOUND")
