"""What can go wrong at a node.

    NodeError                    root: everything that untrusted input can raise here
    ├── HomeRefused              the node's folder is missing, incomplete, or already there
    │   ├── SettingsRefused      node.toml has faults; all of them are listed
    │   └── KeyRefused           a private key is missing, open to others, or malformed
    ├── LedgerError              the privacy ledger does not permit it; nothing was written
    │   ├── BudgetExhausted      the charge would pass a cap
    │   ├── NotReserved          a spend that no reservation covers
    │   ├── SpentBefore          a (run, query, attempt) for the second time
    │   ├── RunSettled           a run that was closed, or whose node restarted
    │   └── LedgerDamaged        the ledger's file is not a ledger, or contradicts itself
    ├── ConsentRefused           a consent table with faults; all of them are listed
    ├── DatasetRefused           data that do not fit the contract; all faults are listed
    └── ActionRefused            a request of the coordinator that this node does not carry out

``cause``, ``fix`` and ``reasons`` never hold a row's value, an identifier of a person, a key or a
path, so ``refusal()`` may travel as it is. What is not fit for the wire stays in ``__cause__``.
The fix, in both languages, is the one given where it is raised, else that of the class for the class's own code, else that
of the catalogue of problems: a code given at the raise never borrows the fix of the class.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypedDict

from convoy_contracts.problems import PROBLEMS


class Refusal(TypedDict):
    """What a refusal says on the wire."""

    code: str
    party: str
    cause: str
    fix: str
    reasons: list[str]


class NodeError(Exception):
    """The root of every error of this package.

    Args:
        cause: what happened, one sentence, safe to send to the other parties.
        party: whom it concerns.
        fix: what to do, where the catalogue's sentence for the code is too general.
        fix_zh: the same in Chinese.
        code: stable code, where the class alone does not say it (a contract decision's code).
        reasons: every reason or fault, each safe to send.
    """

    code = "NODE"
    fix = "Read the cause; nothing left the node."
    fix_zh = "请阅读原因说明；没有任何数据离开本节点。"

    def __init__(
        self,
        cause: str,
        *,
        party: str = "",
        fix: str = "",
        fix_zh: str = "",
        code: str | None = None,
        reasons: Sequence[str] = (),
    ) -> None:
        self.cause = cause
        self.party = party
        if code is not None:
            self.code = code
        usual, usual_zh = _usual_fix(type(self), self.code)
        self.fix, self.fix_zh = fix or usual, fix_zh or usual_zh
        self.reasons = tuple(reasons)
        where = f" (party: {party})" if party else ""
        listed = "".join(f"\n  - {reason}" for reason in self.reasons)
        super().__init__(f"{self.code}: {cause}{where} Fix: {self.fix}{listed}")

    def refusal(self) -> Refusal:
        """Return what the other parties may read about it."""
        return {
            "code": self.code,
            "party": self.party,
            "cause": self.cause,
            "fix": self.fix,
            "reasons": list(self.reasons),
        }


def _usual_fix(kind: type[NodeError], code: str) -> tuple[str, str]:
    """Return the fix of a code in both languages: the class's own sentences for its own code, else the catalogue's."""
    known = PROBLEMS.get(code)
    if known is None or (code == kind.code and "fix" in vars(kind)):
        return kind.fix, kind.fix_zh
    return known.fix, known.fix_zh


_OF_WRITING: Final = frozenset({errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EEXIST, errno.ENOTEMPTY})


def of_file(error: OSError, *, is_written: bool | None = None) -> NodeError:
    """Return what the operating system says about a file as an error of this package, with the file's name and its reason.

    Args:
        error: names a file.
        is_written: whether it was to be written; if not said, it was where the system says so, or where the file is there and
            can be read.
    """
    path = Path(os.fsdecode(error.filename if isinstance(error.filename, str | bytes) else b"?"))
    if is_written is None:
        is_written = error.errno in _OF_WRITING or (path.is_file() and os.access(path, os.R_OK))
    act, code = ("written", "FILE_UNWRITABLE") if is_written else ("read", "FILE_UNREADABLE")
    return NodeError(
        f"{path.name!r} cannot be {act} ({error.strerror}).",
        code=code,
        fix="Check name, folder and rights of the file, or name another.",
        fix_zh="请检查文件的名称、所在文件夹与权限，或指定其他文件。",
    )


class HomeRefused(NodeError):
    """The node's folder is missing, incomplete, or already there."""

    code = "HOME_REFUSED"
    fix = "Name the folder that `convoy-node init` created, or an empty one to create it."
    fix_zh = "请指定由 `convoy-node init` 创建的文件夹；新建时请指定空文件夹。"


class SettingsRefused(HomeRefused):
    """node.toml has faults; ``reasons`` lists all of them."""

    code = "SETTINGS_REFUSED"
    fix = "Correct the listed entries of node.toml."
    fix_zh = "请更正 node.toml 中列出的条目。"


class KeyRefused(HomeRefused):
    """A private key is missing, open to others, or malformed."""

    code = "KEY_REFUSED"
    fix = "Restore the key with mode 0600; if others could read it, make and register a new one."
    fix_zh = "请以 0600 权限恢复密钥；若可能已被他人读取，请生成并登记新密钥。"


class LedgerError(NodeError):
    """The privacy ledger does not permit it; nothing was written."""

    code = "LEDGER"


class BudgetExhausted(LedgerError):
    """The charge would pass a cap of the contract or of the asset's year."""

    code = "BUDGET_EXHAUSTED"
    fix = "Ask for fewer or noisier sums, or wait for the next contract year; caps are never reset."
    fix_zh = "请减少查询或增大噪声，或等待下一合同年度；上限不会被重置。"


class NotReserved(LedgerError):
    """A spend that no reservation of this process covers."""

    code = "NOT_RESERVED"
    fix = "Authorise the run first; only its planned queries can be spent."
    fix_zh = "请先授权该训练任务；只能支出其计划内的查询。"


class SpentBefore(LedgerError):
    """A (run, query, attempt) for the second time: an answer is given once."""

    code = "SPENT_BEFORE"
    fix = "Start a new run; an answer that may have left the node is never made again."
    fix_zh = "请开始新的训练任务；可能已离开节点的回答绝不重新生成。"


class RunSettled(LedgerError):
    """A run that was finished or aborted, or whose node restarted meanwhile."""

    code = "RUN_SETTLED"
    fix = "Start a new run; what was spent stays spent, the rest was released."
    fix_zh = "请开始新的训练任务；已支出的部分不退还，其余已释放。"


class LedgerDamaged(LedgerError):
    """The ledger's file is not a ledger of this version, or contradicts itself."""

    code = "LEDGER_DAMAGED"
    fix = "Stop the node and restore ledger.db; never start with an empty one."
    fix_zh = "请停止节点并恢复 ledger.db；切勿以空账本启动。"


class ConsentRefused(NodeError):
    """A consent table with faults; nothing was imported and ``reasons`` lists all of them."""

    code = "CONSENT_REFUSED"
    fix = "Correct the listed faults at the source and import the whole table again."
    fix_zh = "请在源头更正列出的问题，并重新导入整张表。"


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with a data set, without any row's value.

    ``column`` is empty where the fault is of the table as a whole.
    """

    column: str
    cause: str
    fix: str

    def __str__(self) -> str:
        """Return the fault as one sentence for people."""
        where = f"column {self.column}: " if self.column else ""
        return f"{where}{self.cause} {self.fix}"


class DatasetRefused(NodeError):
    """Data that do not fit what the contract expects; ``faults`` lists everything at once."""

    code = "DATASET_REFUSED"
    fix = "Correct the listed columns at the source; the run starts when all of them fit."
    fix_zh = "请在源头更正列出的列；全部符合后任务才会开始。"

    def __init__(self, faults: Sequence[Fault], *, party: str = "") -> None:
        self.faults = tuple(faults)
        noun = "fault" if len(self.faults) == 1 else "faults"
        super().__init__(
            f"the data have {len(self.faults)} {noun}.",
            party=party,
            reasons=[str(fault) for fault in self.faults],
        )


class ActionRefused(NodeError):
    """A request of the coordinator that this node does not carry out."""

    code = "ACTION_REFUSED"
    fix = "Read code and reasons; the node's operator sees the same in its log."
    fix_zh = "请查看代码与原因；节点运营方在其日志中可见相同内容。"
