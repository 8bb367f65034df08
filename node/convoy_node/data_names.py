"""Names under which partners' systems know the catalogue's fields: COVESA VSS signals, OCPI 2.2.1 CDR members, CRM and DMS columns.

``ALIASES`` is only a help for proposals (``data_map``); a person confirms every line of a mapping. Sources: COVESA Vehicle Signal
Specification 5 (signal paths), OCPI 2.2.1 §10 (CDR object); the CRM/DMS names are those that insurers' and dealers' exports use.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

ALIASES: Final = MappingProxyType(
    {
        "person_id": (
            "customer_id", "customer_no", "cust_id", "policyholder_id", "party_id", "driver_id", "user_id", "uid",
            "auth_id", "cdr_token.uid", "Vehicle.Driver.Identifier.Subject", "客户号", "投保人编号",
        ),
        "driver_age": ("age", "age_years", "driv_age", "drivage", "insured_age", "年龄"),
        "licence_gap_years": ("licence_gap", "license_gap", "years_without_licence"),
        "bonus_malus": ("bonusmalus", "bm", "ncd", "ncd_factor", "no_claim_discount", "无赔款优待系数"),
        "vehicle_power": ("power", "veh_power", "vehpower", "kw", "Vehicle.Powertrain.ElectricMotor.MaxPower", "功率"),
        "vehicle_age": ("veh_age", "vehage", "car_age", "车龄"),
        "density_log": ("log_density", "ln_density"),
        "declared_km_1000": ("declared_km", "annual_km_declared", "declared_mileage"),
        "garage": ("has_garage", "garage_yn", "parking"),
        "claim_count": ("claims", "claimnb", "n_claims", "num_claims", "claims_count", "出险次数"),
        "exposure_years": ("exposure", "policy_years", "earned_exposure", "保险期间"),
        "km_1000": (
            "mileage", "annual_km", "km", "distance_km", "odometer_delta", "Vehicle.TraveledDistance",
            "Vehicle.TraveledDistanceSinceStart", "年行驶里程",
        ),
        "harsh_braking_100km": (
            "harsh_braking", "hard_brakes", "brake_events", "Vehicle.Chassis.Brake.IsDriverEmergencyBrakingDetected",
            "Vehicle.ADAS.EBA.IsEngaged", "急刹车次数",
        ),
        "harsh_acceleration_100km": (
            "harsh_acceleration", "hard_acceleration", "accel_events", "Vehicle.Acceleration.Longitudinal", "急加速次数",
        ),
        "speeding_share": ("speeding", "overspeed_share", "overspeed_ratio", "Vehicle.Speed", "超速占比"),
        "night_share": ("night", "night_driving", "night_ratio", "夜间行驶占比"),
        "urban_share": ("urban", "city_share", "urban_ratio", "城市行驶占比"),
        "distraction_100km": (
            "distraction", "distraction_events", "Vehicle.Driver.DistractionLevel", "Vehicle.Driver.AttentiveProbability",
            "分心次数",
        ),
        "collision_warnings_1000km": (
            "collision_warnings", "fcw", "fcw_events", "Vehicle.ADAS.ObstacleDetection.IsWarning", "前碰撞预警次数",
        ),
        "items": ("location_id", "cdr_location.id", "cdr_location.name", "site_id", "station_id", "evse_uid", "充电站"),
    }
)  # fmt: skip
"""Other names by field; matched without case, blanks and punctuation."""
