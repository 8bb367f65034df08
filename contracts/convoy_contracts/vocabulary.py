"""The closed vocabulary: purposes, actions, grades, and what sensitive data may never be used for.

A contract pins the digest of the purposes; widening this tree therefore needs new signatures.
"""

from __future__ import annotations

from typing import Any

PURPOSES: dict[str, str | None] = {
    "convoy:Any": None,
    "convoy:InsuranceAnalytics": "convoy:Any",
    "convoy:RiskModelTraining": "convoy:InsuranceAnalytics",
    "convoy:UBIRiskModelTraining": "convoy:RiskModelTraining",
    "convoy:ClaimsFraudDetection": "convoy:InsuranceAnalytics",
    "convoy:Recommendation": "convoy:Any",
    "convoy:ChargingRecommendation": "convoy:Recommendation",
    "convoy:ServiceRecommendation": "convoy:Recommendation",
    "convoy:Marketing": "convoy:Any",
    "convoy:DirectMarketing": "convoy:Marketing",
    "convoy:ServiceImprovement": "convoy:Any",
}
ACTIONS: dict[str, str | None] = {
    "use": None,
    "convoy:train": "use",
    "convoy:evaluate": "use",
    "convoy:infer": "use",
    "convoy:price": "use",
    "convoy:reidentify": "use",
}
GRADES = ["L1", "L2", "L3", "L4", "I", "C"]
"""Low to high; I = important data, C = core data."""
BARRED_FOR_SENSITIVE = ["convoy:ServiceImprovement", "convoy:Marketing"]
"""Purposes for which sensitive personal information is barred even with consent (GB/T 41871-2022)."""

VOCABULARY: dict[str, Any] = {
    "purposes": PURPOSES,
    "actions": ACTIONS,
    "grades": GRADES,
    "barredForSensitive": BARRED_FOR_SENSITIVE,
}
"""The ``vocabulary`` of a world (FORMAT.md §2)."""

LABELS: dict[str, tuple[str, str]] = {
    "convoy:Any": ("any purpose", "任何目的"),
    "convoy:InsuranceAnalytics": ("insurance analytics", "保险分析"),
    "convoy:RiskModelTraining": ("training of a risk model", "风险模型训练"),
    "convoy:UBIRiskModelTraining": ("training of a usage-based risk model", "UBI 风险模型训练"),
    "convoy:ClaimsFraudDetection": ("claims fraud detection", "理赔反欺诈"),
    "convoy:Recommendation": ("recommendation", "推荐"),
    "convoy:ChargingRecommendation": ("charging recommendation", "充电推荐"),
    "convoy:ServiceRecommendation": ("service recommendation", "服务推荐"),
    "convoy:Marketing": ("marketing", "营销"),
    "convoy:DirectMarketing": ("direct marketing", "直接营销"),
    "convoy:ServiceImprovement": ("service improvement", "服务改进"),
    "use": ("use", "使用"),
    "convoy:train": ("train", "训练"),
    "convoy:evaluate": ("evaluate", "评估"),
    "convoy:infer": ("infer", "推断"),
    "convoy:price": ("price", "定价"),
    "convoy:reidentify": ("re-identify", "再识别"),
    "L1": ("public", "公开"),
    "L2": ("internal", "内部"),
    "L3": ("personal", "个人信息"),
    "L4": ("sensitive personal", "敏感个人信息"),
    "I": ("important data", "重要数据"),
    "C": ("core data", "核心数据"),
}
"""(English, Chinese) by term."""
