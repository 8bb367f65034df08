"""Every reason code of a refusal: number, clause of FORMAT.md, title and fix in English and Chinese.

The code and its number may never change; decisions order their reasons by number.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Reason:
    """One code. ``section`` is the section of FORMAT.md that the gate rests on (§6 holds the table itself)."""

    number: int
    code: str
    section: str
    title_en: str
    title_zh: str
    fix_en: str
    fix_zh: str


# fmt: off
_TABLE = (
    Reason(1, "CLOCK_UNTRUSTED", "6", "The node's clock cannot be trusted", "节点时钟不可信",
           "Set the node's clock (NTP) and try again", "校准节点时钟（NTP）后重试"),
    Reason(2, "INPUT_MALFORMED", "1-2", "The input is not well formed", "输入格式不正确",
           "Mend the input as FORMAT.md §2 describes", "按 FORMAT.md §2 修正输入"),
    Reason(3, "DOCUMENT_MALFORMED", "3", "The contract text is not a contract", "合约文本不是有效合约",
           "Use the exact text that was signed; 'convoy-contracts lint FILE' lists what is wrong",
           "使用所签署的原文；convoy-contracts lint 会列出问题"),
    Reason(4, "CONTRACT_DIGEST_MISMATCH", "3", "The request names another contract", "请求所指的不是此合约",
           "Ask under the digest of this contract", "按此合约的摘要重新请求"),
    Reason(5, "VOCABULARY_MISMATCH", "3", "The purposes are not those that were signed", "目的词表与签署时不同",
           "Use the pinned vocabulary", "使用合约固定的词表"),
    Reason(6, "SIGNATURE_MISSING", "4", "A party has not signed", "有参与方未签署",
           "Obtain the missing signature", "补齐缺失的签名"),
    Reason(7, "SIGNATURE_KEY_NOT_OF_PARTY", "4", "A signature uses a key that is not the party's", "签名所用密钥不属于该方",
           "Sign with a registered key of the party", "使用该方已登记的密钥签署"),
    Reason(8, "SIGNATURE_INVALID", "4", "A signature does not verify", "签名验证失败",
           "Sign this very contract again", "对此合约重新签署"),
    Reason(9, "CERT_NOT_VALID_AT_SIGNING", "4", "The key was not valid when it signed", "签署时密钥不在有效期",
           "Sign again with a valid key", "使用有效密钥重新签署"),
    Reason(10, "KEY_COMPROMISED", "4", "The signing key is compromised", "签名密钥已泄露",
           "Sign again with a new key", "使用新密钥重新签署"),
    Reason(11, "KEY_REVOKED_BEFORE_SIGNING", "4", "The key had been revoked before it signed", "签署前密钥已被吊销",
           "Sign again with a valid key", "使用有效密钥重新签署"),
    Reason(12, "SIGNED_AFTER_OFFER_LAPSED", "4", "Signed after the offer had lapsed", "要约失效后才签署",
           "Make a new offer and sign it in time", "重新要约并按时签署"),
    Reason(13, "TERM_NOT_STARTED", "3", "The term has not started", "合约期限未开始",
           "Wait for the term", "等待期限开始"),
    Reason(14, "TERM_ENDED", "3", "The term has ended", "合约期限已结束",
           "Agree a new version", "签订新版本"),
    Reason(15, "CONTRACT_TERMINATED", "5", "The contract was terminated", "合约已终止",
           "Agree a new contract", "签订新合约"),
    Reason(16, "CONTRACT_SUPERSEDED", "5", "A newer version replaces this one", "已被新版本取代",
           "Ask under the newer version", "按新版本请求"),
    Reason(17, "CONTRACT_SUSPENDED", "5", "The whole contract is suspended", "合约整体暂停",
           "Wait until all parties resume it", "等待各方恢复"),
    Reason(18, "PARTY_SUSPENDED", "5", "A party of this request is suspended", "请求涉及的参与方已暂停",
           "Wait until that party resumes", "等待该方恢复"),
    Reason(19, "PARTY_NOT_IN_CONTRACT", "3", "Requester or provider is no party", "请求方或提供方不是合约方",
           "Ask as a party, from parties", "以合约方身份请求"),
    Reason(20, "PROVIDER_MISMATCH", "3", "The providers are not those of the assets", "提供方与资产不符",
           "Name exactly the providers of the requested assets", "准确列出所请求资产的提供方"),
    Reason(21, "REQUEST_STALE", "2", "The request is older or newer than 300 s", "请求时间偏差超过 300 秒",
           "Send a fresh request", "重新发送请求"),
    Reason(22, "REQUEST_REPLAYED", "2", "The nonce was seen before", "随机数已使用过",
           "Send a new request with a new nonce", "用新的随机数重新请求"),
    Reason(23, "ROUND_NOT_MONOTONIC", "2", "The round is not newer than the last", "轮次未递增",
           "Use the next round number", "使用下一轮次"),
    Reason(24, "ROUND_NOT_AUTHORISED", "2", "This node did not authorise this very round", "本节点未授权此轮次",
           "Have the round authorised first", "先取得授权"),
    Reason(25, "PURPOSE_UNKNOWN", "3", "The purpose is unknown", "目的未知",
           "Use a purpose of the vocabulary", "使用词表中的目的"),
    Reason(26, "UNKNOWN_TERM", "6", "A rule or the action uses an unknown term", "规则或操作含未知词项",
           "Use the closed vocabulary only", "仅使用封闭词表"),
    Reason(27, "PURPOSE_NOT_COVERED", "6", "No permission covers the purpose", "没有许可覆盖该目的",
           "Ask for a permitted purpose", "请求被许可的目的"),
    Reason(28, "ALGORITHM_NOT_ALLOWED", "6", "The algorithm is not allowed", "算法未被许可",
           "Ask for an algorithm of the contract", "使用合约列出的算法"),
    Reason(29, "NO_MATCHING_PERMISSION", "6", "No permission covers the request", "没有匹配的许可",
           "Ask for what a permission covers", "请求许可范围内的内容"),
    Reason(30, "PROHIBITION_HIT", "6", "A prohibition forbids it", "触发禁止条款",
           "Leave out what is forbidden", "去除被禁止的内容"),
    Reason(31, "ASSET_NOT_IN_SCHEDULE", "3", "An asset is not in the schedule", "资产不在数据清单",
           "Ask for scheduled assets only", "仅请求清单内资产"),
    Reason(32, "ASSET_OWNER_CHANGED", "2", "An asset has another owner now", "资产归属已变更",
           "Agree a new version with the owner", "与新归属方签订新版本"),
    Reason(33, "FIELD_NOT_IN_SCHEDULE", "3", "A field is not in the schedule", "字段不在数据清单",
           "Ask for scheduled fields only", "仅请求清单内字段"),
    Reason(34, "FIELD_NOT_IN_CATALOG", "2", "A field is not in the node's catalogue", "字段不在节点目录",
           "Publish the field or leave it out", "登记该字段或去除"),
    Reason(35, "GRADE_RAISED_SINCE_SIGNING", "2", "A field's grade was raised after signing", "签署后字段级别上调",
           "Agree a new version under the new grade", "按新级别签订新版本"),
    Reason(36, "CORE_DATA_NEVER", "3", "Core data is never used", "核心数据不得使用",
           "Leave the field out", "去除该字段"),
    Reason(37, "GRADE_EXCEEDS", "3", "A field's grade is above the limit", "字段级别超过上限",
           "Leave the field out or agree a higher limit", "去除字段或约定更高上限"),
    Reason(38, "PRECISION_TOO_FINE", "3", "Finer precision than agreed", "精度高于约定",
           "Ask for the agreed precision", "使用约定精度"),
    Reason(39, "PURPOSE_BARRED_FOR_SENSITIVE", "2", "Sensitive data is barred for this purpose", "敏感数据不得用于该目的",
           "Leave the sensitive fields out", "去除敏感字段"),
    Reason(40, "ALGORITHM_DIGEST_MISMATCH", "3", "The algorithm is not the one that was signed", "算法摘要与签署不符",
           "Use the signed algorithm", "使用所签署的算法"),
    Reason(41, "ALGORITHM_ARG_UNKNOWN", "3", "An argument is unknown", "参数未知",
           "Leave the argument out", "去除该参数"),
    Reason(42, "ALGORITHM_ARG_OUT_OF_RANGE", "3", "An argument is out of range", "参数超出范围",
           "Stay inside the agreed range", "保持在约定范围"),
    Reason(43, "OUTPUT_NOT_IN_CONTRACT", "3", "The output is not in the contract", "产出不在合约内",
           "Ask for an agreed output", "请求约定的产出"),
    Reason(44, "RECIPIENT_NOT_ALLOWED", "3", "A recipient may not have the output", "接收方不被允许",
           "Name agreed recipients only", "仅列约定的接收方"),
    Reason(45, "EXPORT_NOT_ASSESSED", "3", "A recipient abroad without assessed export", "境外接收方未经出境评估",
           "Assess the export or leave the recipient out", "完成出境评估或去除该接收方"),
    Reason(46, "REGION_NOT_ALLOWED", "3", "A node runs outside the agreed territory", "节点所在地区不被允许",
           "Run the node inside the territory", "在约定地区运行节点"),
    Reason(47, "COHORT_TOO_SMALL", "6", "Too few persons", "人数不足",
           "Wait for more consents", "等待更多同意"),
    Reason(48, "TOO_FEW_PROVIDERS", "3", "Too few providers", "提供方数量不足",
           "Ask more providers", "增加提供方"),
    Reason(49, "WITHDRAWAL_SINCE_AUTHORISATION", "3", "Somebody withdrew after the round was authorised", "授权后有人撤回同意",
           "Run again without that person", "排除该个人后重新运行"),
    Reason(50, "BUDGET_NOT_DEFINED", "3", "No budget is agreed for an asset", "资产未约定预算",
           "Agree a budget for the asset", "为该资产约定预算"),
    Reason(51, "BUDGET_NOT_STATED", "2", "Epsilon or delta is not stated", "未声明 ε 或 δ",
           "State epsilon > 0 and delta >= 0 per asset", "按资产声明 ε>0 与 δ≥0"),
    Reason(52, "BUDGET_PER_ROUND", "3", "More epsilon than one round may cost", "单轮 ε 超限",
           "Ask for less epsilon", "降低 ε"),
    Reason(53, "BUDGET_EXHAUSTED", "3", "The privacy budget would be passed", "隐私预算将被超出",
           "No further run under this budget; agree a new one", "预算内不能再运行；需重新约定"),
    Reason(54, "DELTA_EXHAUSTED", "3", "The delta budget would be passed", "δ 预算将被超出",
           "Ask for less delta", "降低 δ"),
    Reason(55, "PIA_EXPIRED", "3", "An impact assessment has expired", "影响评估已过期",
           "Renew the assessment", "更新影响评估"),
    Reason(56, "PIA_MISSING", "3", "A controller has no impact assessment", "处理者缺少影响评估",
           "Add the assessment", "补充影响评估"),
    Reason(57, "DUTY_OVERDUE", "2", "A blocking duty is overdue", "阻断性义务逾期",
           "Fulfil the duty", "履行该义务"),
)
# fmt: on

REASONS: dict[str, Reason] = {reason.code: reason for reason in _TABLE}
"""By code, in the order of their numbers."""
