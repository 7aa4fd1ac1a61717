"""What watching found of candidates, as the rollouts' ticks read it."""

from collections.abc import Callable
from datetime import datetime

from shared.registry.drift_policy import DriftPolicy, Following
from shared.rollout.findings import DriftEvidence
from shared.store.repository import Repository
from shared.watching.documents import Alarm, DriftReport, drift_report_id


class StandingAlarms:
    """Reads the alarms that stand. See shared.rollout.findings.DriftFindings."""

    def __init__(self, *, reports: Repository[DriftReport], policy_of: Callable[[str], DriftPolicy]) -> None:
        """`policy_of` gives the policy in force of a model."""
        self._reports = reports
        self._policy_of = policy_of

    def of_candidate(self, endpoint: str, version: int, role: str, *, since: datetime) -> DriftEvidence | None:
        """See the port."""
        report = self._reports.find(endpoint, drift_report_id(version, role))
        episode = report.alarms.get(Alarm.CONCURRENT_DRIFT) if report else None
        if episode is None or episode.since < since or not episode.may_follow:
            return None
        following = self._policy_of(endpoint).following
        if following is Following.NOTHING:
            return None
        return DriftEvidence(
            since=episode.since, sentence=episode.sentence, report_id=episode.report_id, following=following
        )
