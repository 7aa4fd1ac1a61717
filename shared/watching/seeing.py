"""What is known of a version that serves: its hours, what teaches what is usual, and the stable version beside it.

What a candidate or a shadow counted before its rollout began is of an earlier one, and teaches nothing: it had another
share of the traffic, and other traffic.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

from shared.rollout.documents import Target
from shared.rollout.endpoint import Endpoint
from shared.routing.plan import Role, Route
from shared.telemetry.features import FeatureCounts, beside_key
from shared.telemetry.profile import Profile
from shared.watching.assessing import Hours, Seen
from shared.watching.beside import Beside
from shared.watching.documents import DriftReport, Span
from shared.watching.gathering import History, Profiles, stretch
from shared.watching.rollups import hour_of


def seen_of(endpoint: Endpoint, route: Route, history: History, profiles: Profiles, report: DriftReport) -> Seen:
    """What is known of a version that serves."""
    key = f"{route.version}:{route.role}"
    since = history.since
    if report.counts_from and route.role is not Role.STABLE:
        since = max(since, min(hour_of(report.counts_from), hour_of(history.until)))
    hours: Hours = {
        hour: counts
        for hour, counts in history.hours(key).items()
        if report.counts_from is None or route.role is Role.STABLE or hour >= hour_of(report.counts_from)
    }
    profile, why_none = _profile(route.profile_digest, list(hours.values()), profiles)
    if profile is not None:
        hours = _by(profile, hours)
    healthy = history.healthy(key, unhealthy(report)) if profile else []
    beside = None
    if route.role is not Role.STABLE and endpoint.stable is not None:
        beside = _beside(endpoint.stable, key, profile, history, profiles, report)
    return Seen(
        model=endpoint.endpoint,
        endpoint=endpoint.endpoint,
        version=route.version,
        role=route.role.value,
        since=since,
        until=history.until,
        profile=profile,
        why_none=why_none,
        hours=hours,
        first=history.first(key) if since == history.since else None,
        healthy=healthy,
        beside=beside,
        quality=replace(history, since=since).quality(key, len(healthy)),
    )


def unhealthy(report: DriftReport) -> list[Span]:
    """The times that teach nothing: those that a report failed on, and those before the rollout."""
    if report.counts_from is None or report.role == Role.STABLE:
        return list(report.alarmed)
    before = Span(since=datetime.min.replace(tzinfo=UTC), until=hour_of(report.counts_from))
    return [before, *report.alarmed]


def _beside(
    stable: Target, key: str, profile: Profile | None, history: History, profiles: Profiles, report: DriftReport
) -> Beside:
    since, part = stretch(report.counts_from, history.span, history.until)
    stables = f"{stable.version}:{Role.STABLE}"
    hours = history.within(stables, since)
    own, _ = _profile(stable.profile_digest, list(hours.values()), profiles)
    by_other = history.within(beside_key(stables, profile.id), since) if profile else {}
    return Beside(
        version=stable.version,
        profile=own,
        compared=_by(profile, history.within(key, since)) if profile else {},
        hours=hours if own is None else _by(own, hours),
        by_other=_by(profile, by_other) if profile else {},
        part=part,
    )


def _by(profile: Profile, hours: Hours) -> Hours:
    return {hour: counts for hour, counts in hours.items() if counts.profile == profile.id}


def _profile(digest: str | None, hours: Sequence[FeatureCounts], profiles: Profiles) -> tuple[Profile | None, str]:
    digest = digest or (hours[-1].profile if hours else None)
    if digest is None:
        return None, "validate it with reference data"
    found = profiles.find(digest)
    return found, "" if found else f"the profile {digest[:12]} is not there, or not the one that was stored"
