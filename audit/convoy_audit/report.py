"""The one-page report of an evidence pack, English and Chinese, from verified facts only.

    render(summary, checkpoint, standing, policy_digest, made_at) -> bytes      HTML, no script, prints on A4

The same facts give the same bytes, so the verifier renders it again from the entries and compares: a report
that says anything else than the log is found. Nothing in it comes from outside the pack's verified files.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from html import escape
from typing import Final

from convoy_audit.checkpoint import Checkpoint
from convoy_audit.policy import Standing
from convoy_audit.shapes import INSTANT
from convoy_audit.summary import Summary

MAX_ROWS: Final = 12
_STYLE: Final = (
    "@page{size:A4;margin:12mm}body{font:9.5pt/1.35 system-ui,'Noto Sans CJK SC','WenQuanYi Micro Hei',sans-serif;"
    "max-width:186mm;margin:auto;color:#111}h1{font-size:14pt;margin:.2em 0}h2{font-size:10.5pt;margin:.7em 0 .2em}"
    "table{border-collapse:collapse;width:100%}td,th{border:1px solid #999;padding:1px 4px;text-align:left;"
    "overflow-wrap:anywhere}code{font-size:8pt}ul{margin:.2em 0 .2em 1.2em;padding:0}"
)
LIMITS: Final = (
    (
        "An entry shows what was declared, decided or released, and that it was not changed since; not that it is true.",
        "条目只证明声明、决定或发布的内容及其此后未被更改，不证明内容属实。",
    ),
    (
        "Times are the authors' clocks; the witnesses' clocks bound them from above.",
        "时间取自作者时钟；见证方时钟给出其上限。",
    ),
    (
        "A party's last statements can be missing here; only the party knows whether there are later ones.",
        "某方最后的声明可能不在此处；是否有更晚的声明只有该方知道。",
    ),
    (
        "If the coordinator and a quorum of witnesses conspire, they can show another history.",
        "若协调方与达到法定数的见证方串通，可展示另一份历史。",
    ),
    (
        "Epsilon bounds what a release can reveal about one person; it does not say that a model is good or fair.",
        "隐私预算 ε 限制发布结果对单个个人的泄露程度，并不说明模型优劣或公平。",
    ),
)


def render(
    summary: Summary, checkpoint: Checkpoint, standing: Standing | None, policy_digest: str, made_at: datetime
) -> bytes:
    """Return the report.

    Args:
        summary: gathered from the entries under ``checkpoint``.
        checkpoint: what the log has signed.
        standing: who has cosigned it under the pack's own policy; None if that cannot be told.
        policy_digest: of the pack's own policy.
        made_at: when the pack was made, as ``pack.json`` says.
    """
    runs = list(summary.runs.values())
    released = sum(run.outcome in ("released", "recalled") for run in runs)
    span = f"{_instant(summary.first_at)} – {_instant(summary.last_at)}"
    title = f"{escape(checkpoint.origin)} · {checkpoint.size} entries · {checkpoint.size} 条 · {INSTANT.write(made_at)}"
    body = [
        "<h1>Convoy evidence report · Convoy 证据报告</h1>",
        f"<p>{title}</p>",
        _heading("What is signed", "已签名内容"),
        _table(
            (),
            [
                ("root · 根", f"<code>{checkpoint.root.hex()}</code>"),
                ("policy · 策略", f"<code>{escape(policy_digest)}</code>"),
                ("witnesses · 见证方", _witnesses(standing)),
                ("authors' clocks · 作者时钟", escape(span)),
            ],
        ),
        _heading("What happened", "发生的事项"),
        _table(
            (
                "parties · 参与方",
                "contracts · 合约",
                "runs · 训练",
                "released · 已发布",
                "denials · 拒绝",
                "incidents · 事件",
            ),
            [
                tuple(
                    str(n)
                    for n in (
                        len(summary.parties),
                        len(summary.contracts),
                        len(runs),
                        released,
                        summary.denials,
                        summary.incidents,
                    )
                )
            ],
        ),
        _heading("Contracts", "合约"),
        _table(
            ("uid", "version · 版本", "digest · 摘要", "in force · 生效"),
            [
                (escape(uid), str(version), f"<code>{escape(digest[:23])}…</code>", "yes · 是" if active else "no · 否")
                for digest, (uid, version, active) in summary.contracts.items()
            ],
        ),
        _heading("Runs", "训练"),
        _table(
            ("run · 训练", "requester · 申请方", "purpose · 目的", "outcome · 结果", "entry · 条目"),
            [
                (escape(r.run), escape(r.requester), escape(r.purpose), _outcome(r.outcome), str(r.authorised))
                for r in runs[-MAX_ROWS:]
            ],
            len(runs) - MAX_ROWS,
        ),
        _heading("Privacy budget, as each party's ledger states it", "隐私预算（各方账本声明）"),
        _table(
            ("party · 参与方", "asset · 资产", "spent ε · 已用", "cap ε · 上限"),
            [
                (
                    escape(party),
                    escape(asset),
                    _epsilon(a.total_micro),
                    "–" if a.cap_micro is None else _epsilon(a.cap_micro),
                )
                for (party, asset), a in sorted(summary.accounts.items())[:MAX_ROWS]
            ],
            len(summary.accounts) - MAX_ROWS,
        ),
        _heading("What this cannot show", "局限"),
        "<ul>" + "".join(f"<li>{escape(en)}<br><span lang=zh>{escape(zh)}</span></li>" for en, zh in LIMITS) + "</ul>",
        _heading("Verify it yourself", "自行核验"),
        "<p><code>pip install ./audit &amp;&amp; convoy-audit verify PACK --policy YOUR-POLICY</code></p>",
    ]
    page = "\n".join(body)
    return (
        f"<!doctype html>\n<html lang=en><meta charset=utf-8><title>Convoy</title><style>{_STYLE}</style>\n{page}\n</html>\n"
    ).encode()


def _heading(english: str, chinese: str) -> str:
    return f"<h2>{english} · <span lang=zh>{chinese}</span></h2>"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], more: int = 0) -> str:
    lines = ["<table>"]
    if head:
        lines.append("<tr>" + "".join(f"<th>{cell}</th>" for cell in head) + "</tr>")
    lines += ["<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows]
    lines.append("</table>")
    if more > 0:
        lines.append(f"<p>… {more} more in the log · 日志中另有 {more} 项</p>")
    return "".join(lines)


def _witnesses(standing: Standing | None) -> str:
    if standing is None:
        return "not verified · 未核验"
    times = standing.times_s
    clocks = "" if not times else f" ({_seconds(times[0])} – {_seconds(times[-1])})"
    return escape(f"{len(standing.cosigned)} / {standing.needed} needed · 所需: {', '.join(standing.cosigned)}{clocks}")


def _outcome(outcome: str) -> str:
    words = {
        "authorised": "已授权",
        "finished": "已完成",
        "failed": "失败",
        "released": "已发布",
        "recalled": "已召回",
    }
    return f"{outcome} · {words[outcome]}"


def _epsilon(micro: int) -> str:
    """Return epsilon with three decimals, rounded up."""
    thousandths = -(-micro // 1000)
    return f"{thousandths // 1000}.{thousandths % 1000:03d}"


def _instant(at: datetime | None) -> str:
    return "–" if at is None else INSTANT.write(at)


def _seconds(time_s: int) -> str:
    try:
        return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (OverflowError, ValueError, OSError):
        return str(time_s)
