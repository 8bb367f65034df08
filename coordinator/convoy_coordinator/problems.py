"""Answer refusals as RFC 9457 problem documents: code, party, cause, fix; in zh or en.

``CATALOGUE`` is the list of everything this service can refuse. Codes never change their meaning.
``title`` and ``fix`` are sentences for people, in the language the caller accepts; ``cause`` is
English and says what happened to this request. The diagnostic of an unforeseen error goes to the
log; the caller gets ``INTERNAL`` and a trace id, never exception text.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from convoy_coordinator.enrolment.catalogue import ENTRIES as JOINING
from convoy_coordinator.errors import Fault, Problem
from convoy_coordinator.language import Language, choose_language

MEDIA_TYPE: Final = "application/problem+json"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of problem: its status and its sentences."""

    status: int
    title: Mapping[Language, str]
    fix: Mapping[Language, str]


def _kind(status: int, title: str, title_zh: str, fix: str, fix_zh: str) -> Kind:
    return Kind(status, {"en": title, "zh": title_zh}, {"en": fix, "zh": fix_zh})


CATALOGUE: Final[Mapping[str, Kind]] = {
    "BODY_TOO_LARGE": _kind(
        413,
        "The request body is too large.",
        "请求体过大。",
        "Send less, or raise max_body_bytes or max_release_bytes in the settings.",
        "减少内容，或在设置中提高 max_body_bytes 或 max_release_bytes。",
    ),
    "BODY_MALFORMED": _kind(
        400,
        "The request body is not strict JSON.",
        "请求体不是严格的 JSON。",
        "Send UTF-8 JSON with each key once per object and no NaN or Infinity.",
        "请发送 UTF-8 JSON：同一对象中键不得重复，且不含 NaN 或 Infinity。",
    ),
    "INPUT_INVALID": _kind(
        422,
        "The request has members that are missing, unknown or of the wrong kind.",
        "请求中有缺失、未知或类型错误的成员。",
        "Correct every member listed in errors.",
        "请更正 errors 中列出的每个成员。",
    ),
    "TOKEN_MISSING": _kind(
        401,
        "This address needs a bearer token.",
        "此地址需要令牌。",
        "Send 'Authorization: Bearer …' with the token from the coordinator's keys folder.",
        "请在 Authorization 头中发送协调方 keys 文件夹中的令牌。",
    ),
    "TOKEN_WRONG": _kind(
        403,
        "The bearer token is not the right one.",
        "令牌不正确。",
        "Read the token again from the coordinator's keys folder.",
        "请重新从协调方的 keys 文件夹读取令牌。",
    ),
    "SCHEDULE_UNKNOWN": _kind(
        404,
        "There is no such schedule.",
        "没有该计划任务。",
        "List them: GET /v1/schedules, or convoy-coordinator schedule list.",
        "请查看列表：GET /v1/schedules，或 convoy-coordinator schedule list。",
    ),
    "NOT_FOUND": _kind(
        404,
        "There is nothing at this address.",
        "此地址没有内容。",
        "Check the identifier; lists are at /v1/parties, /v1/contracts and /v1/runs.",
        "请检查标识符；列表见 /v1/parties、/v1/contracts 和 /v1/runs。",
    ),
    "METHOD_NOT_ALLOWED": _kind(
        405,
        "This address does not take this method.",
        "此地址不支持该方法。",
        "See /openapi.json for the methods.",
        "方法见 /openapi.json。",
    ),
    "KEY_REJECTED": _kind(
        422,
        "A public key cannot be accepted.",
        "公钥不可接受。",
        "Make a new key with 'convoy-node init' and enrol again.",
        "请用 convoy-node init 生成新密钥后重新登记。",
    ),
    "PARTY_KNOWN": _kind(
        409,
        "This party is enrolled already, with other details.",
        "该参与方已登记，且内容不同。",
        "Use another id, or rotate the keys of the party; enrolment never overwrites.",
        "请使用其他标识或轮换密钥；登记不会覆盖原有内容。",
    ),
    "PARTY_UNKNOWN": _kind(
        404,
        "This party is not enrolled.",
        "该参与方未登记。",
        "Enrol the party first: POST /v1/parties.",
        "请先登记该参与方：POST /v1/parties。",
    ),
    "DOCUMENT_MALFORMED": _kind(
        422,
        "The contract document breaks the format.",
        "合约文档不符合格式。",
        "Run 'convoy-contracts lint FILE' and correct what it lists.",
        "请运行 convoy-contracts lint 并更正所列问题。",
    ),
    "CONTRACT_UNKNOWN": _kind(
        404,
        "No contract has this digest.",
        "没有该摘要的合约。",
        "Compare with 'convoy-contracts digest FILE'; one changed byte gives another digest.",
        "请用 convoy-contracts digest 核对摘要；一个字节不同摘要即不同。",
    ),
    "CONTRACT_VERSION_TAKEN": _kind(
        409,
        "Another document already has this contract uid and version.",
        "该合约编号与版本已被另一文档使用。",
        "Raise the version: a signed document is never replaced.",
        "请提高版本号：已有文档不会被替换。",
    ),
    "SIGNATURE_REFUSED": _kind(
        422,
        "The signature does not hold for this contract.",
        "签名对此合约无效。",
        "Sign the exact document again with the enrolled key: 'convoy-contracts sign'.",
        "请用已登记的密钥对原文重新签名：convoy-contracts sign。",
    ),
    "SIGNER_NOT_A_PARTY": _kind(
        422,
        "The signer is not a party of this contract.",
        "签名者不是此合约的参与方。",
        "Only parties listed in the document can sign it.",
        "只有文档中列出的参与方可以签名。",
    ),
    "EVENT_MALFORMED": _kind(
        422,
        "The contract event breaks its form.",
        "合约事件格式不正确。",
        "Make the event with 'convoy-contracts event' and send it unchanged.",
        "请用 convoy-contracts event 生成事件并原样发送。",
    ),
    "EVENT_REFUSED": _kind(
        409,
        "This act is not possible now, or not for this party.",
        "此操作当前不可行，或不由该方行使。",
        "The cause begins with the reason; see GET /v1/contracts/{uid}/state.",
        "cause 以原因代码开头；请查看 GET /v1/contracts/{uid}/state。",
    ),
    "IF_MATCH_MISSING": _kind(
        428,
        "The request does not say which state of the chain it builds on.",
        "请求未说明所基于的链首。",
        "Send If-Match with the ETag of GET /v1/contracts/{uid}/events.",
        "请在 If-Match 中发送 GET /v1/contracts/{uid}/events 的 ETag。",
    ),
    "CHAIN_MOVED": _kind(
        412,
        "The chain has moved on since.",
        "事件链已前进。",
        "Read the events again, sign the event anew after the new head, and send it.",
        "请重新读取事件，在新的链首之后重新签名并发送。",
    ),
    "ENTRY_MALFORMED": _kind(
        422,
        "The catalogue entry or tier grant breaks its form.",
        "目录条目或等级授予格式不正确。",
        "Correct every member listed in errors; every asset has an owner, a steward and a necessity per field.",
        "请更正 errors 中的成员；每项资产须有责任方、管理方，每个字段须有必要性说明。",
    ),
    "ENTRY_REFUSED": _kind(
        409,
        "The catalogue entry or tier grant is not possible now, or not for this party.",
        "该目录条目或等级授予当前不可行，或不由该方行使。",
        "The cause begins with the reason; see GET /v1/catalogue/{asset} or GET /v1/tiers.",
        "cause 以原因代码开头；请查看 GET /v1/catalogue/{asset} 或 GET /v1/tiers。",
    ),
    "ASSET_UNKNOWN": _kind(
        404,
        "The catalogue has no such asset.",
        "目录中没有该资产。",
        "See GET /v1/catalogue.",
        "请查看 GET /v1/catalogue。",
    ),
    "CONTRACT_NOT_ACTIVE": _kind(
        409,
        "The contract is not in force.",
        "合约未生效。",
        "See GET /v1/contracts/{digest}: missing signatures, term and events are listed there.",
        "请查看 GET /v1/contracts/{digest}：其中列出缺少的签名、期限与事件。",
    ),
    "REQUEST_OUTSIDE_CONTRACT": _kind(
        422,
        "The run asks for something that the contract does not name.",
        "运行请求超出合约范围。",
        "Ask only for what the contract lists in parties, algorithms and outputs.",
        "只可请求合约中列出的参与方、算法与输出。",
    ),
    "RUN_UNKNOWN": _kind(
        404,
        "No run has this identifier.",
        "没有该编号的运行。",
        "See GET /v1/runs.",
        "请查看 GET /v1/runs。",
    ),
    "RUN_STATE_WRONG": _kind(
        409,
        "The run cannot go from its state to this one.",
        "运行不能由当前状态转入该状态。",
        "Read the run again: GET /v1/runs/{uid}. An ended run stays as it ended.",
        "请重新读取运行：GET /v1/runs/{uid}。已结束的运行不再改变。",
    ),
    "RELEASE_UNKNOWN": _kind(
        404,
        "No release of this run, or no such file in it.",
        "该运行没有发布，或其中没有此文件。",
        "See GET /v1/releases/{uid} for the files of a release.",
        "发布文件见 GET /v1/releases/{uid}。",
    ),
    "RELEASE_KNOWN": _kind(
        409,
        "This run has a release already.",
        "该运行已有发布。",
        "A release never changes; start a new run.",
        "发布不可更改；请启动新的运行。",
    ),
    "RELEASE_MALFORMED": _kind(
        422,
        "The bundle and its manifest do not agree.",
        "发布包与清单不一致。",
        "Upload every file that the manifest names, unchanged, and no other.",
        "请原样上传清单所列的全部文件，且不多不少。",
    ),
    "LOG_REFUSED": _kind(
        422,
        "The log does not take this.",
        "日志不接受此内容。",
        "Send entries of 1 to 65,535 bytes and notes over a checkpoint of this log.",
        "请发送 1 至 65,535 字节的条目，以及针对本日志检查点的签名。",
    ),
    "LOG_NOT_WITNESSED": _kind(
        409,
        "The log entry of this act is not cosigned by enough witnesses yet, so the act has no effect.",
        "该操作的日志条目尚未获得足够见证方签名，因此未生效。",
        "Repeat the request in a few seconds; if it stays so, bring more witnesses up.",
        "请数秒后重试；若仍如此，请启动更多见证方。",
    ),
    "LOG_BEHIND_WITNESS": _kind(
        503,
        "A witness has seen more of this log than there is, so nothing more is written.",
        "见证方看到的日志多于现存日志，因此不再写入。",
        "Stop the coordinator and restore the missing entries from a copy; never sign over the gap.",
        "请停止协调方并从副本恢复缺失条目；切勿在缺口之上继续签名。",
    ),
    "LOG_ARCHIVED": _kind(
        410,
        "These entries are archived and no longer served here.",
        "这些条目已归档，此处不再提供。",
        "Ask the operator for the archive; its tiles verify against the same checkpoint.",
        "请向运营方索取归档；其数据块可用同一检查点验证。",
    ),
    "LOG_UNAVAILABLE": _kind(
        503,
        "The log could not be written, so nothing was done.",
        "日志无法写入，因此未执行任何操作。",
        "Check disk and database of the coordinator, then repeat the request.",
        "请检查协调方的磁盘与数据库，然后重试。",
    ),
    **{code: _kind(*words) for code, words in JOINING.items()},
    "INTERNAL": _kind(
        500,
        "Something failed that we did not foresee.",
        "出现了未预料的错误。",
        "Give the trace id to the operator of the coordinator.",
        "请将跟踪编号提供给协调方运维人员。",
    ),
}


def problem_document(problem: Problem, language: Language = "en") -> dict[str, Any]:
    """Return the RFC 9457 members of a problem."""
    kind = CATALOGUE[problem.code]
    return {
        "type": f"urn:convoy:problem:{problem.code}",
        "title": kind.title[language],
        "status": kind.status,
        "detail": problem.cause,
        "code": problem.code,
        "party": problem.party,
        "cause": problem.cause,
        "fix": problem.fix or kind.fix[language],
        "errors": [fault.as_json() for fault in problem.faults],
    }


def install_problems(app: FastAPI) -> None:
    """Make every error of the application leave it as a problem document."""
    app.add_exception_handler(Problem, _answer_problem)
    app.add_exception_handler(HTTPException, _answer_http)
    app.add_exception_handler(RequestValidationError, _answer_validation)
    app.add_exception_handler(Exception, _answer_unforeseen)


def problem_response(request: Request, problem: Problem, **members: object) -> JSONResponse:
    """Answer a request with a problem, in its language."""
    document = problem_document(problem, choose_language(request)) | members
    headers = {"WWW-Authenticate": "Bearer"} if document["status"] == 401 else None
    return JSONResponse(document, status_code=document["status"], media_type=MEDIA_TYPE, headers=headers)


def _answer_problem(request: Request, error: Exception) -> Response:
    if not isinstance(error, Problem):  # registered for Problem only
        return _answer_unforeseen(request, error)
    return problem_response(request, error)


def _answer_http(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    code = {404: "NOT_FOUND", 405: "METHOD_NOT_ALLOWED"}.get(status, "INPUT_INVALID")
    return problem_response(request, Problem(code, f"{request.method} {request.url.path} answers {status}"))


def _answer_validation(request: Request, error: Exception) -> Response:
    found = error.errors() if isinstance(error, RequestValidationError) else []
    faults = [Fault("/" + "/".join(map(str, e["loc"])), str(e["msg"])) for e in found]
    return problem_response(request, Problem("INPUT_INVALID", f"{len(faults)} member(s) are wrong", faults=faults))


def _answer_unforeseen(request: Request, error: Exception) -> Response:
    trace_id = secrets.token_hex(8)
    _log.error("trace %s: %s %s failed", trace_id, request.method, request.url.path, exc_info=error)
    return problem_response(request, Problem("INTERNAL", "an unforeseen error; it is in the log"), trace_id=trace_id)
