"""Reads what was reported: the latest report of each version, and those before."""

import re
from collections.abc import Iterator
from datetime import datetime, timedelta

from shared.core.errors import InvalidInputError, NotFoundError
from shared.core.threads import side_by_side
from shared.registry.documents import waiting_records
from shared.store.ports import BlobContainer, BlobStore, Container, DocumentStore
from shared.store.repository import Repository
from shared.store.unreadable import Unreadable, named, naming, read_or_left_out
from shared.watching.documents import DriftFinding, DriftRecord, DriftReport, drift_report_id
from shared.watching.rollups import DAY, day_of

MAX_PAGE_BYTES = 64_000_000
MAX_SINCE = timedelta(days=366)
MOST_RECORDS = 1_000
_ID = re.compile(r"(drift-[0-9]{9}-[a-z]+)-([0-9]{8}T[0-9]{4})-[0-9a-f]{12}")


class Reports:
    """Reads reports. It writes nothing."""

    def __init__(
        self,
        *,
        reports: Repository[DriftReport],
        documents: DocumentStore,
        blobs: BlobStore,
        most_records: int = MOST_RECORDS,
    ) -> None:
        self._reports = reports
        self._documents = documents
        self._blobs = blobs
        self._most_records = most_records

    def latest(self, model: str, unreadable: list[Unreadable] | None = None) -> list[DriftReport]:
        """Each version in each role that was ever reported on, with its latest report, in the order of the versions.

        What cannot be read is left out and added to `unreadable`, where that is given, and is an error elsewhere.
        """
        if unreadable is None:
            return list(self._reports.where(partition=model))
        return list(self._reports.readable(partition=model, unreadable=unreadable))

    def of_all(self) -> Iterator[DriftReport]:
        """Those of all models."""
        return self._reports.where()

    def finding(self, model: str, version: int, role: str, against: str) -> DriftFinding | None:
        """What was found last of a version in a role, against the reference or the concurrent version."""
        report = self._reports.find(model, drift_report_id(version, role))
        findings = report.latest.findings if report and report.latest else ()
        return next((finding for finding in findings if finding.against == against), None)

    def since(
        self, model: str, since: datetime, now: datetime, unreadable: list[Unreadable] | None = None
    ) -> list[DriftRecord]:
        """The reports of the time from `since` on, the latest last, and the latest alone. Raises InvalidInputError.

        What cannot be read is left out, and added to `unreadable`.
        """
        if since.tzinfo is None or now - since > MAX_SINCE:
            raise InvalidInputError(
                f"{since.isoformat()} has no time zone, or is over {MAX_SINCE.days} days ago: give a later time, with "
                "its zone"
            )
        day, names = day_of(since), []
        while day <= now:
            infos = self._blobs.list(BlobContainer.REPORTS, f"{model}/drift/{day:%Y-%m-%d}/")
            names += [info.name for info in infos if info.name.endswith(".json")]
            day += DAY
        ids = sorted((name.rpartition("/")[2].removesuffix(".json") for name in names), key=_until_of)

        def read(report_id: str) -> DriftRecord | None:
            return read_or_left_out(f"{report_id} of {model}", lambda: self._record(model, report_id), unreadable)

        found = [record for record in side_by_side(read, ids[-self._most_records :]) if record]
        return sorted((record for record in found if record.report.until >= since), key=lambda one: one.report.made_at)

    def one(self, model: str, report_id: str) -> DriftRecord:
        """A report. Raises NotFoundError."""
        found = self._record(model, report_id)
        if found is None:
            raise NotFoundError(f"the drift report {report_id[:100]} of {model}")
        return found

    def json(self, model: str, report_id: str) -> bytes:
        """The whole report as JSON. Raises NotFoundError."""
        return self._blob(self.one(model, report_id).report.report_blob)

    def page(self, model: str, report_id: str) -> bytes:
        """Its HTML page. Raises NotFoundError."""
        return self._blob(self.one(model, report_id).report.page_blob)

    def _blob(self, name: str) -> bytes:
        blob = self._blobs.read(BlobContainer.REPORTS, name, max_bytes=MAX_PAGE_BYTES)
        if blob is None:
            raise NotFoundError(f"blob {name} of the reports", hint="it was deleted")
        return blob.data

    def _record(self, model: str, report_id: str) -> DriftRecord | None:
        form = _ID.fullmatch(report_id)
        if form is None:
            return None
        stored = self._documents.get(Container.REPORTS, model, report_id)
        if stored is not None:
            with naming(named(Container.REPORTS, stored.body)):
                return DriftRecord.model_validate(stored.body) if stored.body["kind"] == "drift_record" else None
        # It may wait in the outbox of the document that it was made by.
        owner = self._reports.find(model, form[1])
        waiting = waiting_records(owner, "drift_record") if owner else []
        return next((DriftRecord.model_validate(body) for body in waiting if body["id"] == report_id), None)


def _until_of(report_id: str) -> str:
    """Until when a report is, in a form that is ordered as time is; first, where that is not told."""
    form = _ID.fullmatch(report_id)
    return form[2] if form else ""
