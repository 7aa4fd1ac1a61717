"""A drop of performance through the service: feedback is counted, a report finds it, and says what it is told by."""

import json
from dataclasses import dataclass, field
from datetime import timedelta

import numpy as np
import pytest

from shared.alerts.documents import AlertRule
from shared.core.canonical import canonical_json, digest_of_bytes
from shared.core.verdict import Outcome
from shared.drift.coding import codes_of
from shared.drift.performance import PerformanceModel, fitted
from shared.registry.documents import ModelVersion, ValidationSummary, VersionState, version_id
from shared.registry.drift_policy import DriftPolicy, RetrainingPolicy
from shared.registry.manifest import Manifest, Task
from shared.routing.plan import artifact_blob_name
from shared.store.ports import BlobContainer
from shared.telemetry.featurecolumns import Columns
from shared.telemetry.feedback import FeedbackCounts, hour_of
from shared.telemetry.histogram import bucket_index
from shared.telemetry.window import Window, window_blob_name
from shared.watching.documents import Alarm
from tests.world.test_watching import queued
from tests.world.watched import NAMES, Table, Watched, counted, rows_of
from tests.world.world import MODEL

ASKING = DriftPolicy(retraining=RetrainingPolicy(enabled=True))
DELAY_S = 32.0
ROWS = 4_000


@dataclass
class Performed(Watched):
    """A version that is right the less often the greater `income` is, and labels that come on what it answered."""

    labelled: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        rows = rows_of(self.rng, ROWS)
        codes = codes_of(self.profile, Columns([(rows, ROWS)]))
        model = fitted(self.profile, codes, self.right(rows).astype(np.float64))
        assert model is not None
        self.model: PerformanceModel = model
        data = canonical_json(model.model_dump(mode="json"))
        digest = digest_of_bytes(data)
        self.world.blobs.put(BlobContainer.ARTIFACTS, artifact_blob_name(digest), data, {})
        version = ModelVersion(
            id=version_id(1),
            model=MODEL,
            version=1,
            state=VersionState.VALIDATED,
            drop=f"{MODEL}/one.onnx",
            digest="d" * 64,
            artifact_digest="a" * 64,
            artifact_size_bytes=1,
            profile_digest=self.profile.id,
            performance_digest=digest,
            manifest=Manifest(task=Task.CLASSIFICATION),
            registered_at=self.now,
            attempted_at=self.now,
            validation=ValidationSummary(outcome=Outcome.PASS, verdicts=[], metrics={}, report_blob="r"),
        )
        self.world.documents.create(version.container, version.to_body())
        # What is counted of an endpoint begins with the first call.
        self.world.budgets.count()

    def right(self, rows: dict[str, Table]) -> np.ndarray:
        """Whether it answered each row as it should have."""
        share = np.clip(0.85 - 0.2 * rows["x"][:, NAMES.index("income")], 0.05, 0.99)
        found: np.ndarray = self.rng.random(len(share)) < share
        return found

    def an_hour(self, *, moved: float = 0.0, labels: int = 0, wrong: float = 0.0) -> None:
        """An hour of traffic and so many labels on it, by which it was wrong in so much more of the rows."""
        self.world.clock.pass_s(1_800)
        rows = rows_of(self.rng, ROWS // 4, {"income": moved})
        self.write({"1:stable": counted(self.profile, rows)})
        right = self.right(rows)[:labels] & (self.rng.random(labels) >= wrong)
        self.label(labels, int(right.sum()))
        self.world.clock.pass_s(1_800)
        self.world.budgets.count()
        self.look()

    def label(self, labels: int, correct: int) -> None:
        """A window of a pod in which labels came on what was answered in this hour."""
        row = FeedbackCounts(
            version=1,
            generation=1,
            role="stable",
            reason="assigned",
            hour=hour_of(self.now),
            count=labels,
            labelled=labels,
            correct=correct,
            delay_s={bucket_index(DELAY_S): labels} if labels else {},
        )
        window = Window(
            endpoint=MODEL,
            pod="pod-1",
            sequence=self.labelled,
            generation=1,
            started_at=self.now,
            ended_at=self.now,
            loaded=[1],
            feedback=[row] if labels else [],
        )
        self.labelled += 1
        name = window_blob_name(MODEL, window.ended_at, window.pod, window.sequence)
        self.world.blobs.put(BlobContainer.TELEMETRY, name, window.model_dump_json().encode(), {})

    def said(self) -> str:
        """What the alert says that fires."""
        (alert,) = self.world.alerts.firing(AlertRule.PERFORMANCE_DROP)
        return alert.sentence


def test_labels_that_say_it_got_worse_raise_an_alarm_that_says_how_many_they_are_and_lead_to_one_request() -> None:
    watched = Performed(policy=ASKING)
    watched.an_hour(labels=400)
    assert watched.firing() == {}
    page = watched.world.watching.reports.page(MODEL, watched.latest.report_id).decode()
    assert "<dt>by 400 labels</dt>" in page
    assert "no day that is over has an estimate and 30 labels yet" in page, "today is under way"
    for _ in range(3):
        watched.an_hour(labels=400, wrong=0.3)
    assert watched.firing() == {"performance_drop": 1}
    # The alarm began with the first report that had the labels of both hours.
    assert "by 800 labels, half of them within about 32 s of their prediction" in watched.said()
    assert f"and was {watched.model.level:.3f} at validation: a drop by 0.05 or more, and no chance" in watched.said()
    (request,) = watched.world.watching.requests(MODEL).requests
    assert request.alarm is Alarm.PERFORMANCE_DROP
    assert [message["request_id"] for message in queued(watched)] == [request.request_id]


def test_fewer_labels_than_tell_raise_none() -> None:
    watched = Performed(policy=ASKING)
    watched.an_hour(labels=99, wrong=0.5)
    assert watched.firing() == {}
    watched.an_hour(labels=1, wrong=0.5)
    assert watched.firing() == {"performance_drop": 1}


@pytest.mark.parametrize("labels", [1_000, 0])
def test_an_estimate_raises_one_where_earlier_days_labels_have_borne_it_out_and_says_that_it_is_one(
    labels: int,
) -> None:
    watched = Performed(policy=ASKING)
    for _ in range(12):
        watched.an_hour(labels=labels)
        watched.world.clock.pass_s(timedelta(hours=23).total_seconds())
        watched.look()
    assert watched.firing() == {}
    # As long as there are labels of the span, they tell, and no estimate does.
    watched.world.clock.pass_s(timedelta(hours=24).total_seconds())
    watched.an_hour(moved=0.8)
    details = json.loads(watched.world.watching.reports.json(MODEL, watched.latest.report_id))
    assert details["performance"]["may_gate"] is bool(labels)
    estimate = watched.latest.estimate
    assert estimate is not None
    assert (estimate.value, estimate.may_gate) == (details["performance"]["estimate"], bool(labels))
    assert (estimate.miss is not None) == bool(labels)
    if labels:
        assert "by an estimate without labels" in watched.said()
        assert "performance_drop" in watched.firing()
    else:
        assert watched.firing() == {"data_drift": 1}
        said = "no day that is over has an estimate and 30 labels yet: the estimate does not gate"
        assert said in " ".join(watched.latest.sentences)
