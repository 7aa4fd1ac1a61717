"""What a policy's rules may ask beside traffic: how the rollout goes on, and how far the serving version drifts.

Pure: read off the endpoint's document and the latest report on its stable version.
"""

from datetime import datetime, timedelta

from shared.alerts.rules import Measured
from shared.registry.alert_policy import AlertMetric, AlertRulePolicy
from shared.rollout.endpoint import Endpoint
from shared.rollout.standing import standing
from shared.watching.documents import DriftReport

DRIFT_TOLD_FOR = timedelta(days=1)
"""A report on what came longer ago tells nothing of now."""


def measured_beside(
    rule: AlertRulePolicy, endpoint: Endpoint, report: DriftReport | None, now: datetime
) -> Measured | None:
    """What a rule measures; None where that cannot be told. `report` is on the stable version."""
    match rule.metric:
        case AlertMetric.DRIFT_PSI:
            return _drift(report, rule, endpoint, now)
        case AlertMetric.STAGE_AGE_S:
            return _stage_age(endpoint, now)
        case AlertMetric.DECISION_LAG_S:
            return _lag(endpoint, now)
    return None


def _drift(report: DriftReport | None, rule: AlertRulePolicy, endpoint: Endpoint, now: datetime) -> Measured | None:
    """The PSI beyond its noise. 0 where no report tells it of now: a trouble of another version, or of days ago, would
    stand for ever.
    """
    latest = report.latest if report else None
    if report is None or latest is None or now - latest.until > DRIFT_TOLD_FOR:
        return None if rule.below is not None else Measured(value=0.0, of=_unreported(endpoint))
    if latest.rows < rule.min_count or not latest.psi_noise:
        return None
    # That of few rows is far from 0 without any drift.
    beyond = {name: max(0.0, latest.psi[name] - noise) for name, noise in latest.psi_noise.items()}
    feature, psi = max(beyond.items(), key=lambda one: (one[1], one[0]))
    of = f"of {feature}, the farthest of {len(beyond)} in {latest.rows} rows of version {report.version}"
    noise = f"less {latest.psi_noise[feature]:.2g} for noise"
    return Measured(value=psi, of=f"{of}, {noise}: `slipway drift {report.model}`")


def _unreported(endpoint: Endpoint) -> str:
    return f"no report of the last day on version {endpoint.stable.version}" if endpoint.stable else "nothing serves"


def _stage_age(endpoint: Endpoint, now: datetime) -> Measured:
    rollout = endpoint.active
    age_s = standing(endpoint, rollout, now).stage_age_s if rollout else None
    if rollout is None or age_s is None:
        return Measured(value=0.0, of="no rollout is under way")
    return Measured(value=age_s, of=f"of rollout {rollout.rollout_id}, which is {rollout.state}")


def _lag(endpoint: Endpoint, now: datetime) -> Measured:
    ticking = endpoint.ticking
    if ticking is None:
        return Measured(value=0.0, of="no rollout is to be looked at")
    lag_s = max(0.0, (now - ticking.next_tick_at).total_seconds())
    return Measured(value=lag_s, of=f"since the next look at rollout {ticking.rollout_id} was due")
