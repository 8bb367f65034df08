"""The errors of the audit library; untrusted input can raise nothing else.

    AuditError                  everything below; carries code, cause, fix and, where known, party
    ├── FormatError             bytes that are not what they should be
    ├── ProofError              a Merkle proof that does not hold
    ├── KeyRejected             a public or private key that must not be used
    ├── SignatureError          a signature that is missing or does not hold
    ├── PolicyError             a checkpoint that the policy does not accept, or a policy file that
                                is wrong
    ├── StatementError          a party's statement: signature, numbering or chain
    ├── EvidenceError           evidence that does not show what it should
    ├── ConsentProofError       a consent receipt or proof that does not hold
    ├── RetentionError          something that must be kept, or that was forgotten
    ├── ZkError                 a zero-knowledge proof that does not hold, or the extra is missing
    ├── StoreConflict           a witness store was changed in between; the witness tries again
    ├── StoreError              a witness store that is missing, damaged, or cannot be written
    └── WitnessRefusal          a witness does not cosign
        ├── OriginUnknown       404
        ├── LogSignatureWrong   403
        ├── WitnessStale        409, tells the size it has
        ├── WitnessRollback     409, tells the size it has
        └── WitnessInconsistent 422

Codes are stable English. The cause says what happened to this input; it never repeats unbounded
input. The fix, in English and Chinese, stands in ``FIXES`` and is the same for every error of a
code.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Final

FIXES: Final[Mapping[str, tuple[str, str]]] = {
    "FORMAT_WRONG": (
        ("Use the exact bytes that the log, witness or party produced; audit/SPEC.md gives each format."),
        "请使用日志、见证方或参与方生成的原始字节；格式见 audit/SPEC.md。",
    ),
    "PROOF_WRONG": (
        ("Ask for the proof again for exactly these sizes; if it stays wrong, keep all inputs: they may show fraud."),
        "请按相同大小重新索取证明；若仍不成立，请保留全部输入，它们可能是造假的证据。",
    ),
    "CONSENT_PROOF_WRONG": (
        "Ask the party for receipt and proof again; keep all of them, because a promise that is not kept shows here.",
        "请向该参与方重新索取回执与证明，并全部保留：未兑现的承诺会在此显现。",
    ),
    "KEY_REJECTED": (
        "Generate a new key with Signer.generate (nodes: convoy-node init) and enrol that.",
        "请用 Signer.generate（节点用 convoy-node init）生成新密钥后登记。",
    ),
    "SIGNATURE_MISSING": (
        ("Check that the pinned keys are the right ones; then ask for a note that these keys have signed."),
        "请核对所固定的密钥，再索取由这些密钥签名的文件。",
    ),
    "SIGNATURE_WRONG": (
        "Do not use this text. Ask its author again and keep both versions.",
        "请勿使用此文本；请向作者重新索取并保留两个版本。",
    ),
    "WITNESS_CHANGE_WRONG": (
        "Do not follow it; ask the party by telephone which keys its witness has, and keep the statement.",
        "请勿采用；请致电该参与方确认其见证密钥，并保留该声明。",
    ),
    "POLICY_WRONG": (
        "Correct the policy file; its format is c2sp.org/tlog-policy.",
        "请更正策略文件；格式见 c2sp.org/tlog-policy。",
    ),
    "QUORUM_MISSING": (
        "Bring more witnesses up and have the checkpoint cosigned again.",
        "请启动更多见证方并重新取得见证签名。",
    ),
    "OWN_WITNESS_MISSING": (
        "Let the own witness cosign this checkpoint first; no work starts without it.",
        "请先由本方见证方签名；否则不得开始工作。",
    ),
    "STATEMENT_WRONG": (
        "Ask the party for its statement again; compare with the copy that the party keeps.",
        "请向该参与方重新索取声明，并与其留存副本核对。",
    ),
    "STATEMENT_CHAIN_BROKEN": (
        "Ask the party for the statements between; a gap means that one was left out or forked.",
        "请向该参与方索取缺失的声明；缺号表示有声明被遗漏或分叉。",
    ),
    "EVIDENCE_WRONG": (
        "Ask for the evidence again; do not act on it.",
        "请重新索取证据；在此之前不要据此行动。",
    ),
    "ENTRY_BACK_DATED": (
        "Do not work on it; compare the coordinator's clock with the witnesses'. An honest entry is written anew.",
        "请勿据此工作；请核对协调方与见证方的时钟。正当的条目应重新写入。",
    ),
    "ZK_WRONG": (
        "Ask the party for a proof of exactly this claim; install convoy-audit[zk] to verify it.",
        "请向该参与方索取针对该声明的证明；核验需安装 convoy-audit[zk]。",
    ),
    "RETENTION_FLOOR": (
        "Keep it: the law sets this floor and no configuration lowers it. Ask again after the date that is named.",
        "请继续保存：该下限由法律规定，配置不能降低；请在所示日期之后再申请。",
    ),
    "STORE_WRONG": (
        ("Restore the witness folder, or make a new witness with a new key; never start an old key from nothing."),
        "请恢复见证方文件夹，或用新密钥新建见证方；旧密钥不得从零开始。",
    ),
    "ORIGIN_UNKNOWN": (
        ("Pin the verifier keys of this log at the witness, or send the checkpoint of the log it knows."),
        "请在见证方固定该日志的验证密钥，或发送其已知日志的检查点。",
    ),
    "LOG_SIGNATURE_WRONG": (
        "Compare the log's verifier keys with those pinned at the witness.",
        "请核对日志验证密钥与见证方固定的密钥。",
    ),
    "WITNESS_STALE": (
        "Send a consistency proof from the size that the witness has.",
        "请从见证方已有的大小发送一致性证明。",
    ),
    "WITNESS_ROLLBACK": (
        (
            "Stop the coordinator: its log is smaller than what it signed before. Restore the "
            "missing entries from a copy."
        ),
        "请停止协调方：其日志小于此前已签署的大小。请从副本恢复缺失条目。",
    ),
    "WITNESS_INCONSISTENT": (
        (
            "Stop work and keep the alarm: it holds both signed checkpoints. The log was rewritten "
            "or shows two histories."
        ),
        "请停止工作并保留警报：其中有两份已签名检查点。日志被改写或存在两份历史。",
    ),
}
"""What to do, in English and Chinese, by code."""


class AuditError(Exception):
    """The root: something in the audit trail cannot be accepted."""

    default_code: ClassVar[str] = "FORMAT_WRONG"

    def __init__(self, cause: str, *, code: str | None = None, party: str | None = None) -> None:
        self.code = code or self.default_code
        self.cause = cause
        self.party = party
        super().__init__(f"{self.code}: {cause}" + (f" (party: {party})" if party else "") + f" {self.fix}")

    @property
    def fix(self) -> str:
        """What to do, in English."""
        return FIXES[self.code][0]

    @property
    def fix_zh(self) -> str:
        """What to do, in Chinese."""
        return FIXES[self.code][1]


class FormatError(AuditError):
    """Bytes that are not what they should be."""


class ProofError(AuditError):
    """A Merkle proof that does not hold."""

    default_code = "PROOF_WRONG"


class KeyRejected(AuditError):
    """A key that must not be used."""

    default_code = "KEY_REJECTED"


class SignatureError(AuditError):
    """A signature that is missing or does not hold."""

    default_code = "SIGNATURE_WRONG"


class PolicyError(AuditError):
    """A checkpoint that the policy does not accept, or a wrong policy file."""

    default_code = "POLICY_WRONG"


class StatementError(AuditError):
    """A party's statement that does not hold by itself or in its chain."""

    default_code = "STATEMENT_WRONG"


class EvidenceError(AuditError):
    """Evidence that does not show what it should."""

    default_code = "EVIDENCE_WRONG"


class ZkError(AuditError):
    """A zero-knowledge proof that does not hold, or that cannot be verified here."""

    default_code = "ZK_WRONG"


class RetentionError(AuditError):
    """Something must be kept longer, or was forgotten already."""

    default_code = "RETENTION_FLOOR"


class StoreError(AuditError):
    """A witness store that is missing, damaged or cannot be written."""

    default_code = "STORE_WRONG"


class ConsentProofError(AuditError):
    """A consent receipt or proof that does not hold."""

    default_code = "CONSENT_PROOF_WRONG"


class StoreConflict(AuditError):
    """Something else is stored than was expected; judge again."""

    default_code = "STORE_WRONG"


class WitnessRefusal(AuditError):
    """A witness does not cosign; ``status`` is the answer of tlog-witness, ``size`` what the
    witness has."""

    default_code = "WITNESS_STALE"
    status: ClassVar[int] = 400

    def __init__(self, cause: str, *, size: int = 0, party: str | None = None) -> None:
        super().__init__(cause, party=party)
        self.size = size


class OriginUnknown(WitnessRefusal):
    """The witness does not know this log."""

    default_code = "ORIGIN_UNKNOWN"
    status = 404


class LogSignatureWrong(WitnessRefusal):
    """The checkpoint is not signed by the pinned keys of its log."""

    default_code = "LOG_SIGNATURE_WRONG"
    status = 403


class WitnessStale(WitnessRefusal):
    """The proof does not start at the size that the witness has."""

    default_code = "WITNESS_STALE"
    status = 409


class WitnessRollback(WitnessRefusal):
    """The log is smaller than one that it signed before."""

    default_code = "WITNESS_ROLLBACK"
    status = 409


class WitnessInconsistent(WitnessRefusal):
    """The log does not extend the one that the witness has."""

    default_code = "WITNESS_INCONSISTENT"
    status = 422
