"""The errors of convoy_models.

    ModelsError                  root: everything that untrusted input can raise here
    ├── MessageMalformed         a record or blob that is not a message of this protocol
    ├── MessageMissing           a peer's part has not arrived; nothing was released
    ├── MessageUnexpected        a blob nobody may send now
    ├── SealBroken               wrong key, wrong context or an altered byte
    ├── KeyUnknown               no pinned mask key for a party
    ├── TagReused                a (run, query, attempt) or one of its steps for the second time
    ├── ShapeMismatch            rows or columns of two parties do not fit
    ├── LinksRefused             link ids that repeat, have a wrong size, or have nobody in common
    ├── ValueRefused             not finite, or above the cap that the contract states
    ├── RingOverflow             a sum could leave the ring's head-room; it never wraps silently
    ├── NoiseRefused             a noise scale that does not protect
    ├── AccountingRefused        a mechanism or number that the accountant does not cover
    └── BundleRefused            a release that may not be used
        ├── BundleMalformed      not a release folder of a known format
        ├── BundleAltered        a byte, a file or the signature is not what was released
        └── BundleNotForUse      recalled, another contract, or another recipient

Every error names the cause and the fix (English and Chinese). ``cause`` never holds a row's
value, an identifier of a person or a key, so it may travel in a refusal.
"""

from __future__ import annotations


class ModelsError(Exception):
    """The root of every error of this package.

    Args:
        cause: what happened, one sentence, safe to send to the other parties.
        party: whom it concerns, where there is one.
        fix: what to do, where the sentence of the class is too general.
    """

    code = "MODELS"
    fix = "Read the cause; nothing was released."
    fix_zh = "请阅读原因说明；没有任何数据被释放。"

    def __init__(self, cause: str, *, party: str | None = None, fix: str | None = None) -> None:
        self.cause = cause
        self.party = party
        if fix is not None:
            self.fix = fix
        where = f" (party: {party})" if party else ""
        super().__init__(f"{self.code}: {cause}{where} Fix: {self.fix}")

    def as_refusal(self) -> dict[str, str | None]:
        """Return what a refusal says on the wire: code, party, cause and fix."""
        return {"code": self.code, "party": self.party, "cause": self.cause, "fix": self.fix}


class MessageMalformed(ModelsError):
    """A record or blob that is not a message of this protocol."""

    code = "MESSAGE_MALFORMED"
    fix = "Use the same protocol version at both ends."
    fix_zh = "请在两端使用相同的协议版本。"


class MessageMissing(ModelsError):
    """A peer's part of a query has not arrived."""

    code = "MESSAGE_MISSING"
    fix = "Run the steps in order and relay every blob; start a new attempt if a party stopped."
    fix_zh = "请按顺序执行各步骤并转发每个数据块；若有一方中断，请开始新的尝试。"


class MessageUnexpected(ModelsError):
    """A blob that nobody may send at this point of the run."""

    code = "MESSAGE_UNEXPECTED"
    fix = "Relay each blob once, to the party and with the tag it was addressed to."
    fix_zh = "每个数据块只转发一次，并按其收件方和标签转发。"


class SealBroken(ModelsError):
    """A sealed blob that does not open: wrong key, wrong context, or an altered byte."""

    code = "SEAL_BROKEN"
    fix = "Check that both parties signed the same contract and that no blob was altered or swapped."
    fix_zh = "请核对双方签署的是同一份合约，且转发过程没有改动或调换数据块。"


class KeyUnknown(ModelsError):
    """A party without a pinned mask key, or with an unusable one."""

    code = "KEY_UNKNOWN"
    fix = "Name the party and its maskKey in the contract that everybody signs."
    fix_zh = "请在各方签署的合约中写明该方及其 maskKey。"


class TagReused(ModelsError):
    """A step of a (run, query, attempt) for the second time: pads and masks are used once."""

    code = "TAG_REUSED"
    fix = "Start a new attempt with a new number; masks of an old one are never used again."
    fix_zh = "请用新的编号开始新的尝试；旧尝试的掩码绝不重复使用。"


class ShapeMismatch(ModelsError):
    """Rows or columns of two parties do not fit."""

    code = "SHAPE_MISMATCH"
    fix = "Let every party derive the plan from the same signed specification and align rows first."
    fix_zh = "请各方由同一份已签署的规格推导计划，并先完成行对齐。"


class LinksRefused(ModelsError):
    """Link ids that repeat, have a wrong size, or have nobody in common."""

    code = "LINKS_REFUSED"
    fix = "Give each consenting person exactly one 16-byte link id per contract."
    fix_zh = "请确保每位同意者在每份合约下恰有一个 16 字节的 link id。"


class ValueRefused(ModelsError):
    """A value that is not finite, or above the cap that the contract states."""

    code = "VALUE_REFUSED"
    fix = "Clip to the contract's cap and remove missing values before the run."
    fix_zh = "请在运行前按合约上限截断，并去除缺失值。"


class RingOverflow(ModelsError):
    """A sum that could leave the head-room of the ring."""

    code = "RING_OVERFLOW"
    fix = "Use fewer rows, lower caps or fewer fraction bits; sums never wrap silently."
    fix_zh = "请减少行数、降低上限或减少小数位；求和绝不会静默回绕。"


class NoiseRefused(ModelsError):
    """A noise scale that does not protect, or that the sampler cannot draw exactly."""

    code = "NOISE_REFUSED"
    fix = "Take sigma from the plan; it is positive and finite."
    fix_zh = "请使用计划中的 sigma；它为正且有限。"


class AccountingRefused(ModelsError):
    """A mechanism or number that the accountant does not cover: refused rather than guessed."""

    code = "ACCOUNTING_REFUSED"
    fix = "Use epsilon > 0, delta in (0, 1), a positive sensitivity and a positive sigma."
    fix_zh = "请使用 epsilon > 0、0 < delta < 1、正的敏感度和正的 sigma。"


class BundleRefused(ModelsError):
    """A release that may not be used."""

    code = "BUNDLE_REFUSED"
    fix = "Fetch the release again from the coordinator and verify it against the log."
    fix_zh = "请从协调方重新获取该发布包，并对照日志验证。"


class BundleMalformed(BundleRefused):
    """Not a release folder of a known format."""

    code = "BUNDLE_MALFORMED"


class BundleAltered(BundleRefused):
    """A byte, a file or the signature is not what was released."""

    code = "BUNDLE_ALTERED"


class BundleNotForUse(BundleRefused):
    """Genuine, but recalled, under another contract, or for another recipient."""

    code = "BUNDLE_NOT_FOR_USE"
    fix = "Use the release of the contract in force that names you as a recipient."
    fix_zh = "请使用现行有效合约下、将贵方列为接收方的发布包。"
