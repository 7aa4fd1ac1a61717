"""Deletes what watching leaves behind, when it is old: drift reports, the states of detectors, roll-ups, and windows.

A report is its page, its document and its JSON, and goes in that order: a process that dies in between leaves the JSON,
by which the next call finds the rest. What is kept, however old: the latest report of each version in each role, and
what an alarm that stands, a request for retraining that is not over, or a rollout under way names as its evidence.

A state that no document names goes after GRACE. Whoever stores one that lies there already touches it first, so that of
a deletion and a document that names the state again one finds the ETag changed.

Nothing is deleted but in the state that was listed. A call deletes a bounded number of blobs. Windows have their turn
at every call, and where there are more than it deletes, each endpoint has its share of them. The rest of a model has
its turn once an hour, at the call that its minute brings or the first one after it.
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice

from shared.core.clock import Clock
from shared.core.errors import ChangedMeanwhileError, ConflictError
from shared.core.threads import side_by_side
from shared.registry.documents import Model
from shared.retention.ages import DAILY_DAYS, HOURLY_DAYS, WINDOW_DAYS
from shared.rollout.endpoint import ENDPOINT_ID, Endpoint
from shared.store.ports import BlobContainer, BlobInfo, BlobStore, Container, DocumentStore
from shared.store.repository import Repository
from shared.telemetry.features import feature_folder
from shared.watching.documents import RETRAINING_ID, DriftReport, Retraining
from shared.watching.rollups import ROLLUPS, daily_name, hourly_name
from shared.watching.turns import keep_place, read_place

GRACE = timedelta(hours=2)
"""Three times host.json's functionTimeout: whoever stored a state has named it by then, or never will."""
MOST_WINDOWS = 2_000
"""Windows that a call deletes of all endpoints. Where pods write more, storage's own rule deletes them."""
MOST_BLOBS = 500
"""Other blobs that a call deletes of a model, of each kind."""
PLACE = "tidy-turn.txt"
"""When the last call was."""
_TURNS = 60
_MINUTE = timedelta(minutes=1)
_DAY = "2026-11-21"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportRetention:
    """Deletes by age. Two calls at once do no harm."""

    models: Repository[Model]
    endpoints: Repository[Endpoint]
    reports: Repository[DriftReport]
    retraining: Repository[Retraining]
    documents: DocumentStore
    blobs: BlobStore
    clock: Clock
    most_windows: int = MOST_WINDOWS
    most_blobs: int = MOST_BLOBS

    def tidy(self) -> int:
        """Delete what is due, once a minute; how many windows went. What is wrong with one model keeps no other from
        it, and is raised at the end.
        """
        now, deleted = self.clock.now(), 0
        failures: list[Exception] = []
        turns = self._turns(now)
        if not turns:
            return 0
        numbered = list(enumerate(self.models.readable()))
        # Another is the last at each call, who may delete all that those before it left.
        first = int(now.timestamp() // _MINUTE.total_seconds()) % max(1, len(numbered))
        for left, (number, model) in zip(
            range(len(numbered), 0, -1), [*numbered[first:], *numbered[:first]], strict=True
        ):
            try:
                deleted += self._tidy_windows(model.model, now, (self.most_windows - deleted) // left)
                if number % _TURNS in turns:
                    self.tidy_model(model, now)
            except Exception as error:  # noqa: BLE001 - whatever is wrong with one, the others go on
                _log.exception("what is old of model %s is not deleted", model.model)
                failures.append(error)
        if failures:
            raise ExceptionGroup("not all that is old could be deleted", failures)
        return deleted

    def _turns(self, now: datetime) -> set[int]:
        """The minutes of the hour that came since the last call. Kept before, so that a model at which calls die costs
        no other its turn.
        """
        minute = now.astimezone(UTC).replace(second=0, microsecond=0)
        try:
            last = datetime.fromisoformat(read_place(self.blobs, PLACE))
            since = max(last, minute - _TURNS * _MINUTE) if last.tzinfo and last <= minute else minute - _MINUTE
        except ValueError:
            since = minute - _MINUTE
        keep_place(self.blobs, PLACE, minute.isoformat())
        return {(minute - back * _MINUTE).minute for back in range((minute - since) // _MINUTE)}

    def tidy_model(self, model: Model, now: datetime) -> None:
        """Delete a model's old reports, states and roll-ups."""
        name = model.model
        self._tidy_reports(name, now - timedelta(days=model.policy.retention.keep_reports_days))
        self._tidy_states(name, now)
        for named, days in ((hourly_name, HOURLY_DAYS), (daily_name, DAILY_DAYS)):
            folder = named(name, now).rpartition("/")[0]
            self._delete(ROLLUPS, islice(self._older(ROLLUPS, f"{folder}/", now, days), self.most_blobs))

    def _tidy_windows(self, name: str, now: datetime, most: int) -> int:
        deleted = 0
        # The names of request windows begin with their year: what else there is of an endpoint does not.
        for left, folder in ((2, f"{name}/"), (1, f"{feature_folder(name)}/")):
            old = self._older(BlobContainer.TELEMETRY, f"{folder}2", now, WINDOW_DAYS, folder=folder)
            deleted += self._delete(BlobContainer.TELEMETRY, islice(old, -(-(most - deleted) // left)))
        return deleted

    def _tidy_reports(self, name: str, before: datetime) -> None:
        folder = f"{name}/drift/"
        listed = _before(self.blobs.list(BlobContainer.REPORTS, folder), folder, before)
        kept = self._named(name)
        for info in islice((one for one in listed if _report_in(one.name)[0] not in kept), 2 * self.most_blobs):
            report_id, kind = _report_in(info.name)
            # The page is listed before the JSON, and must be gone before it.
            if kind != "json" or self._forget(name, report_id):
                self._delete(BlobContainer.REPORTS, iter([info]))

    def _forget(self, name: str, report_id: str) -> bool:
        """Delete a report's document; whether it is gone."""
        stored = self.documents.get(Container.REPORTS, name, report_id)
        if stored is None:
            return True
        if stored.body.get("kind") != "drift_record":
            return False
        self.documents.delete(Container.REPORTS, name, report_id, etag=stored.etag)
        return True

    def _tidy_states(self, name: str, now: datetime) -> None:
        listed = self.blobs.list(BlobContainer.REPORTS, f"{name}/drift-state/")
        old = [info for info in listed if now - info.last_modified > GRACE]
        # Read after the listing: what is named from now on was touched, and is not what was listed.
        named = {report.slow_blob for report in self.reports.where(partition=name)} if old else set()
        left = (info for info in old if info.name not in named)
        self._delete(BlobContainer.REPORTS, islice(left, self.most_blobs))

    def _named(self, name: str) -> set[str]:
        """The reports that something stands on."""
        found: set[str] = set()
        for report in self.reports.where(partition=name):
            found |= {report.latest.report_id} if report.latest else set()
            found |= {episode.report_id for episode in report.alarms.values()}
        book = self.retraining.find(name, RETRAINING_ID)
        found |= {request.report_id for request in book.requests if not request.state.is_over} if book else set()
        endpoint = self.endpoints.find(name, ENDPOINT_ID)
        if endpoint and endpoint.active and endpoint.active.drift:
            found.add(endpoint.active.drift.report_id)
        return found

    def _older(
        self, container: BlobContainer, prefix: str, now: datetime, days: int, *, folder: str = ""
    ) -> Iterator[BlobInfo]:
        return _before(self.blobs.list(container, prefix), folder or prefix, now - timedelta(days=days))

    def _delete(self, container: BlobContainer, infos: Iterator[BlobInfo]) -> int:
        return sum(side_by_side(self._deleting(container), infos))

    def _deleting(self, container: BlobContainer) -> Callable[[BlobInfo], bool]:
        def delete(info: BlobInfo) -> bool:
            try:
                return self.blobs.delete(container, info.name, etag=info.etag)
            except ChangedMeanwhileError:
                return False  # It is not what was listed.
            except ConflictError as error:
                _log.info("%s/%s stays: %s", container, info.name, error)
                return False

        return delete


def _report_in(name: str) -> tuple[str, str]:
    """The id of the report that a blob is of, and which of its blobs: `html` or `json`."""
    report_id, _, kind = name.rpartition("/")[2].rpartition(".")
    return report_id, kind


def _before(listed: Iterator[BlobInfo], folder: str, before: datetime) -> Iterator[BlobInfo]:
    """Those, in the order of their names, that lie under a day within the folder that was over by then."""
    for info in listed:
        try:
            day = datetime.strptime(info.name[len(folder) :][: len(_DAY)], "%Y-%m-%d").replace(tzinfo=UTC)
        except ValueError:
            continue
        if day + timedelta(days=1) > before:
            return
        yield info
