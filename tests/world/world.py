"""A small world for the services: ports in memory, one pod that follows the plans, and a pump that delivers messages.

`run` plays a job to its end through any number of kills: a killed handler's message comes again, as a queue's would,
and the sweep runs. Only the sandbox is replaced by a stand-in, which reads a verdict off the dropped bytes.
"""

import contextlib
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from shared.alerts.control import ControlAlerts
from shared.alerts.documents import Alert
from shared.alerts.mailbox import Mailbox
from shared.alerts.notifications import NotificationService
from shared.alerts.service import AlertService
from shared.alerts.silences import Silence
from shared.alerts.traffic import TrafficAlerts
from shared.approvals.service import ApprovalService
from shared.audit.service import AuditService
from shared.budgets.service import BudgetService
from shared.core.alert_settings import AlertSettings
from shared.core.canonical import digest_of_bytes
from shared.core.errors import InvalidInputError
from shared.core.ids import Digest, EndpointName, ModelName
from shared.core.messages import (
    MoveAlias,
    PublishEvent,
    Queue,
    RegisterDrop,
    RolloutCommand,
    RolloutTick,
    TellNews,
    ValidateVersion,
)
from shared.core.slots import Slot
from shared.core.verdict import Outcome, Verdict
from shared.deadletters.documents import DeadLetter
from shared.deadletters.service import DeadLetterService
from shared.events.retries import EventRetries
from shared.events.service import EventService
from shared.integrity.documents import ArtifactCheck
from shared.integrity.service import IntegrityService
from shared.lineage.service import LineageService
from shared.registration.documents import Drop
from shared.registration.service import RegistrationService
from shared.registry.alias_service import AliasService
from shared.registry.aliases import Alias
from shared.registry.documents import Model, ModelVersion
from shared.registry.manifest import Manifest, Task, parse_manifest
from shared.registry.policy import Policy
from shared.registry.rollout_policy import Provider
from shared.registry.service import RegistryService
from shared.registry.signature import FREE, Signature, TensorSpec
from shared.retention.documents import RetentionRun
from shared.retention.service import RetentionService
from shared.retention.uses import Uses
from shared.rollout.alerting import RolloutAlerts
from shared.rollout.endpoint import ENDPOINT_ID, Endpoint
from shared.rollout.gateway import backend_name, manifest_blob_name
from shared.rollout.queries import MetricsStore
from shared.rollout.service import RolloutService
from shared.routing.plan import Role, Route, RoutePlan, plan_blob_name
from shared.store.aggregate import Aggregate
from shared.store.outbox import Outbox
from shared.store.ports import BlobContainer, Container
from shared.store.repository import Repository
from shared.sweep import SweepService
from shared.telemetry.feedback import MILLION, FeedbackCounts, hour_of
from shared.telemetry.histogram import bucket_index
from shared.telemetry.window import Deaths, ShadowCounts, VersionCounts, Window, window_blob_name
from shared.validation.champion import Champions
from shared.validation.refusal import DropRefusedError, RefusalCode
from shared.validation.report import ValidationReport
from shared.validation.sandbox import Intake, ModelFiles, SandboxLimits, StoredPart, Validation
from shared.validation.service import ValidationService
from shared.watching.documents import DriftReport, Retraining
from shared.watching.evidence import StandingAlarms
from shared.watching.service import WatchService
from tests.world.fakes import FakeBlobs, FakeClock, FakeDocuments, FakeNoticeSink, FakeQueues, FakeSink, Fuse, Killed

GRACE = timedelta(seconds=60)
MODEL = ModelName("digits")
ENDPOINT = EndpointName(MODEL)
LINGER_S = 600.0
"""How long a pod without a request goes on with what the plan has elsewhere."""


@dataclass
class Pod:
    """A model server: each `report` follows the plan and reports a window of traffic.

    `errors` is the share of each version's requests that it fails, `unloadable` names versions that it cannot load,
    and why. A pod that `is_silent` reports nothing; one that `is_stuck` goes on with the plan that it follows.
    """

    errors: dict[int, float] = field(default_factory=dict)
    unloadable: dict[int, str] = field(default_factory=dict)
    latency_ms: dict[int, float] = field(default_factory=dict)
    requests: int = 1_000
    sequence: int = 0
    name: str = "pod-1"
    is_silent: bool = False
    is_stuck: bool = False
    tripped: dict[int, str] = field(default_factory=dict)
    disagreements: dict[int, float] = field(default_factory=dict)
    """The share of the copies to which a shadow gives another answer."""
    pinned: int = 0
    """Requests that name the candidate, in each window."""
    memory_share: float | None = None
    """The share of its memory limit that it uses."""
    plan: RoutePlan | None = None
    """The one that it follows."""
    deaths: Deaths | None = None
    """Of the processes before it in its place."""
    feedback: dict[int, float] = field(default_factory=dict)
    """The mean of what comes of each version's answers; nobody says what comes of the others'."""
    feedback_after: int = 0
    """How many windows later it comes."""
    owed: list[list[FeedbackCounts]] = field(default_factory=list)
    """Feedback that is still to come, window by window."""
    slot: Slot | None = None
    """The slot that it is of."""
    share_bp: int = 10_000
    """The share of the endpoint's requests that the Gateway sends to the pods of its slot."""
    left_at: datetime | None = None
    """Since when the published plan has what it serves elsewhere, and the Gateway sends it nothing."""

    @property
    def answers(self) -> bool:
        """Whether it has a version that is loaded."""
        routes = self.plan.routes if self.plan and not self.is_silent else ()
        return any(route.version not in self.unloadable for route in routes)

    def report(self, blobs: FakeBlobs, clock: FakeClock, endpoint: str) -> None:
        """Serve a while under the plan that is published, and write a window."""
        blob = blobs.held.get((BlobContainer.ROUTES, plan_blob_name(endpoint)))
        if blob is None or self.is_silent:
            return
        if self.plan is None or not self.is_stuck:
            self._follow(RoutePlan.model_validate_json(blob.data), clock.now())
        assert self.plan is not None
        routes = self.plan.for_pod(self.name).routes
        window = Window(
            endpoint=endpoint,
            pod=self.name,
            sequence=self.sequence,
            generation=self.plan.generation,
            started_at=clock.now(),
            ended_at=clock.now(),
            loaded=[route.version for route in routes if route.version not in self.unloadable],
            failed={
                route.version: self.unloadable[route.version] for route in routes if route.version in self.unloadable
            },
            tripped={route.version: self.tripped[route.version] for route in routes if route.version in self.tripped},
            versions={route.version: self._counts(route) for route in routes},
            memory_share=self.memory_share,
            deaths=self.deaths,
            feedback=self._fed_back(routes, clock.now(), self.plan.generation),
            slot=self.slot,
            refused=self._refused(RoutePlan.model_validate_json(blob.data)),
        )
        name = window_blob_name(endpoint, window.ended_at, window.pod, window.sequence)
        blobs.put(BlobContainer.TELEMETRY, name, window.model_dump_json().encode(), {})
        self.sequence += 1

    def _follow(self, published: RoutePlan, now: datetime) -> None:
        """Take a plan as the server does: what it serves goes on for a while where other pods have what it has."""
        mine = published.for_slot(self.slot)
        is_elsewhere = bool(published.routes) and not mine.routes and self.plan is not None and bool(self.plan.routes)
        self.left_at = (self.left_at if self.left_at and not self.share_bp else now) if is_elsewhere else None
        if self.left_at is None or (now - self.left_at).total_seconds() >= LINGER_S:
            self.plan = mine

    def _refused(self, published: RoutePlan) -> dict[str, int]:
        """Requests that reach it and that pods of another slot could answer."""
        is_elsewhere = published.routes and self.plan is not None and not self.plan.routes
        sent = self._sent(10_000)
        return {"elsewhere": sent} if is_elsewhere and sent else {}

    def _sent(self, weight_bp: int) -> int:
        """Its requests of a share of those that reach it."""
        return self.requests * self.share_bp * weight_bp // 10_000**2

    def _fed_back(self, routes: Sequence[Route], now: datetime, generation: int) -> list[FeedbackCounts]:
        made = []
        for route in routes:
            count = self._sent(route.weight_bp)
            if count and route.version in self.feedback:
                good = round(count * self.feedback[route.version])
                made.append(
                    FeedbackCounts(
                        version=route.version,
                        generation=generation,
                        role=route.role.value,
                        reason="assigned",
                        hour=hour_of(now),
                        count=count,
                        valued=count,
                        good=good,
                        value_millionths=good * MILLION,
                    )
                )
        self.owed.append(made)
        return self.owed.pop(0) if len(self.owed) > self.feedback_after else []

    def _counts(self, route: Route) -> VersionCounts:
        requests = self._sent(route.weight_bp)
        errors = round(requests * self.errors.get(route.version, 0.0))
        bucket = bucket_index(self.latency_ms.get(route.version, 5.0))
        mirrored = self.requests * route.mirror_bp // 10_000
        disagreements = round(mirrored * self.disagreements.get(route.version, 0.0))
        return VersionCounts(
            requests=requests,
            errors=errors,
            latency_ms={bucket: requests - errors} if requests > errors else {},
            pinned=self.pinned if route.role is Role.CANDIDATE else 0,
            shadow=ShadowCounts(mirrored=mirrored, compared=mirrored, disagreements=disagreements)
            if mirrored
            else None,
        )


@dataclass
class Gateway:
    """What sends requests to the pods of each slot: by the routes that were published `lag_s` seconds ago."""

    lag_s: int = 0
    is_deaf: bool = False
    """Whether it goes on as it is, whatever is published."""
    heard: list[tuple[datetime, dict[str, Any]]] = field(default_factory=list)
    """Each List that was published, and when it was seen."""
    failed: list[str] = field(default_factory=list)
    """Each second in which requests were sent to pods of which none had a version."""

    def look(self, blobs: FakeBlobs, now: datetime, pods: Sequence[Pod]) -> None:
        """Hear what is published, and send requests for a second."""
        blob = blobs.held.get((BlobContainer.MANIFESTS, manifest_blob_name(ENDPOINT)))
        if blob is not None and not self.is_deaf and (not self.heard or json.loads(blob.data) != self.heard[-1][1]):
            self.heard.append((now, json.loads(blob.data)))
        shares = self.shares(now)
        for pod in pods:
            pod.share_bp = shares[pod.slot]
        for slot, share_bp in shares.items():
            here = [pod for pod in pods if pod.slot is slot]
            if share_bp and any(pod.answers for pod in pods) and not any(pod.answers for pod in here):
                self.failed.append(f"{now}: {share_bp} to {slot}")

    def shares(self, now: datetime) -> dict[Slot | None, int]:
        """The share of each slot's pods, by the routes that it goes by."""
        due = [routes for at, routes in self.heard if (now - at).total_seconds() >= self.lag_s]
        if not due:
            return {slot: 0 if slot else 10_000 for slot in (None, *Slot)}
        http = next(item for item in due[-1]["items"] if item["kind"] == "HTTPRoute")
        drawn = {ref["name"]: ref["weight"] for ref in http["spec"]["rules"][-1]["backendRefs"]}
        return {slot: drawn.get(backend_name(ENDPOINT, slot), 0) for slot in (None, *Slot)}


class World:
    """The control plane over ports in memory."""

    def __init__(
        self, *, sinks: Sequence[str] = (), grace: timedelta = GRACE, alert_settings: AlertSettings | None = None
    ) -> None:
        """`sinks` names who is told of lifecycle events; `grace` is the sweep's; `alert_settings` say who is told of
        alerts.
        """
        self.fuse = Fuse()
        self.clock = FakeClock()
        self.documents = FakeDocuments(self.fuse)
        self.blobs = FakeBlobs(self.fuse, self.clock)
        self.queues = FakeQueues(self.fuse, self.clock)
        self.pod = Pod()
        self.others: list[Pod] = []
        """Further pods; each reports beside the first."""
        self.gateway = Gateway()
        self.stores: dict[Provider, MetricsStore] = {}
        """Who answers the queries of gates."""
        outbox = Outbox(self.documents, self.blobs, self.queues, self.clock, sinks=sinks)
        self.sinks = {name: FakeSink(self.fuse) for name in sinks}
        self.events = EventService(documents=self.documents, sinks=self.sinks, source="/slipway")

        def repository[A: Aggregate](kind: type[A]) -> Repository[A]:
            return Repository(kind, self.documents, outbox)

        models, versions, drops = repository(Model), repository(ModelVersion), repository(Drop)
        endpoints, aliases = repository(Endpoint), repository(Alias)
        limits = SandboxLimits()
        self.registry = RegistryService(models=models, versions=versions, documents=self.documents, clock=self.clock)
        self.aliases = AliasService(aliases=aliases, registry=self.registry, documents=self.documents, clock=self.clock)
        self.registration = RegistrationService(
            models=models,
            versions=versions,
            drops=drops,
            blobs=self.blobs,
            clock=self.clock,
            limits=limits,
            intake=_intake,
            parse_manifest=_parse_manifest,
        )
        reports, retraining = repository(DriftReport), repository(Retraining)
        self.rollouts = RolloutService(
            endpoints=endpoints,
            registry=self.registry,
            aliases=self.aliases,
            documents=self.documents,
            blobs=self.blobs,
            clock=self.clock,
            stores=self.stores,
            findings=StandingAlarms(reports=reports, policy_of=lambda name: self.registry.model(name).policy.drift),
        )
        self.validation = ValidationService(
            versions=versions,
            registry=self.registry,
            blobs=self.blobs,
            clock=self.clock,
            limits=limits,
            champion=Champions(aliases=aliases, endpoints=endpoints).champion,
            check=_validation,
        )
        alerts, letters, runs = repository(Alert), repository(DeadLetter), repository(RetentionRun)
        uses = Uses(endpoints=endpoints, aliases=aliases)
        self.alert_settings = alert_settings or AlertSettings()
        mailboxes, silences = repository(Mailbox), repository(Silence)
        tells_after = timedelta(seconds=self.alert_settings.group_wait_s) if self.alert_settings.sinks else None
        self.alerts = AlertService(alerts=alerts, silences=silences, clock=self.clock, tells_after=tells_after)
        self.alert_sinks = {sink.name: FakeNoticeSink(self.fuse) for sink in self.alert_settings.sinks}
        self.notifications = NotificationService(
            alerts=alerts,
            mailboxes=mailboxes,
            service=self.alerts,
            sinks=self.alert_sinks,
            settings=self.alert_settings,
            clock=self.clock,
        )
        self.letters = letters
        self.dead_letters = DeadLetterService(letters=letters, alerts=self.alerts, clock=self.clock)
        self.event_retries = EventRetries(letters=letters, replays=self.dead_letters, clock=self.clock)
        self.integrity = IntegrityService(
            versions=versions,
            checks=repository(ArtifactCheck),
            uses=uses,
            alerts=self.alerts,
            blobs=self.blobs,
            clock=self.clock,
        )
        self.approvals = ApprovalService(
            endpoints=endpoints, rollouts=self.rollouts, registry=self.registry, keys=[b"k" * 32], clock=self.clock
        )
        self.budgets = BudgetService(
            endpoints=endpoints,
            documents=self.documents,
            blobs=self.blobs,
            clock=self.clock,
        )
        self.rollout_alerts = RolloutAlerts(endpoints=endpoints, alerts=self.alerts, clock=self.clock)
        self.traffic_alerts = TrafficAlerts(
            endpoints=endpoints, models=self.registry, documents=self.documents, alerts=self.alerts, clock=self.clock
        )
        self.control_alerts = ControlAlerts(
            endpoints=endpoints, documents=self.documents, alerts=self.alerts, clock=self.clock
        )
        self.retention = RetentionService(
            registry=self.registry,
            rollouts=self.rollouts,
            versions=versions,
            drops=drops,
            runs=runs,
            uses=uses,
            blobs=self.blobs,
            clock=self.clock,
        )
        self.watching = WatchService(
            endpoints=endpoints,
            reports=reports,
            retraining=retraining,
            registry=self.registry,
            alerts=self.alerts,
            documents=self.documents,
            blobs=self.blobs,
            clock=self.clock,
        )
        self.audit = AuditService(
            self.documents,
            {
                "model": Model,
                "version": ModelVersion,
                "drop": Drop,
                "endpoint": Endpoint,
                "alias": Alias,
                "alert": Alert,
                "mailbox": Mailbox,
                "silence": Silence,
                "dead_letter": DeadLetter,
                "retention_run": RetentionRun,
                "drift_report": DriftReport,
                "retraining": Retraining,
            },
        )
        self.lineage = LineageService(
            registry=self.registry, aliases=self.aliases, rollouts=self.rollouts, audit=self.audit, clock=self.clock
        )
        self.sweep = SweepService(
            outboxes=(
                models,
                versions,
                drops,
                endpoints,
                aliases,
                alerts,
                mailboxes,
                silences,
                letters,
                runs,
                reports,
                retraining,
            ),
            versions=versions,
            registry=self.registry,
            registration=self.registration,
            rollouts=self.rollouts,
            queues=self.queues,
            clock=self.clock,
            grace=grace,
        )

    def put_policy(self, policy: Policy) -> None:
        """Set the model's policy."""
        self.registry.put_policy(MODEL, policy, by="test", reason="it is the test's")

    def drop(self, content: str, *, name: str = "model.onnx") -> str:
        """Drop a model, without its event. Content `bad` is refused, content with `worse` rejected.

        Content with `takes:a,b` has the inputs a and b (`takes:` alone: nobody knows which), other content the input x;
        content with `by:ann` has the author ann.
        """
        blob = f"{MODEL}/{name}"
        self.blobs.put(BlobContainer.INCOMING, blob, content.encode(), {})
        return blob

    def handle(self, queue: str, body: str) -> None:
        """What the functions do with a message."""
        match queue:
            case Queue.REGISTRATIONS:
                self.registration.register(RegisterDrop.model_validate_json(body).blob)
            case Queue.VALIDATIONS:
                self.validation.validate(ValidateVersion.model_validate_json(body))
            case Queue.ROLLOUT_COMMANDS:
                self.rollouts.handle(RolloutCommand.model_validate_json(body))
            case Queue.ROLLOUT_TICKS:
                self.rollouts.tick(RolloutTick.model_validate_json(body))
            case Queue.ALIAS_MOVES:
                self.aliases.follow(MoveAlias.model_validate_json(body))
            case Queue.LIFECYCLE_EVENTS:
                self.events.publish(PublishEvent.model_validate_json(body))
            case Queue.ALERT_NEWS:
                self.notifications.tell(TellNews.model_validate_json(body))
            case _:
                raise AssertionError(queue)

    def event(self, blob: str) -> None:
        """Deliver a drop's event, as the blob trigger would."""
        self.queues.messages.append(
            (self.clock.now(), Queue.REGISTRATIONS, json.dumps(RegisterDrop(blob=blob).model_dump()))
        )

    def step(self, *, copies: int = 1, rng: random.Random | None = None) -> bool:
        """Deliver the messages that are due, each `copies` times, shuffled by `rng`. False where none was due."""
        due = [message for message in self.queues.messages if message[0] <= self.clock.now()]
        self.queues.messages = [message for message in self.queues.messages if message[0] > self.clock.now()]
        due = due * copies
        if rng:
            rng.shuffle(due)
        for message in due:
            try:
                self.handle(message[1], message[2])
            except Killed:
                # What was in the process is gone, the ports hold what they hold, and the message comes again.
                self.queues.messages.append(message)
        return bool(due)

    def run(self, *, seconds: int = 400, copies: int = 1, rng: random.Random | None = None) -> None:
        """Let the world go on: each second what is due is delivered and the pod reports, each minute the sweep runs."""
        for second in range(seconds):
            while self.step(copies=copies, rng=rng):
                pass
            for container, _, document_id in list(self.documents.held):
                if container is Container.ENDPOINTS and document_id == ENDPOINT_ID:
                    self.gateway.look(self.blobs, self.clock.now(), (self.pod, *self.others))
                    for pod in (self.pod, *self.others):
                        pod.report(self.blobs, self.clock, ENDPOINT)
            self.clock.pass_s(1)
            if second % 60 == 59:
                with contextlib.suppress(Killed):
                    self.sweep.sweep()

    @property
    def stable(self) -> int | None:
        """The version that is stable."""
        stable = self.endpoint().stable
        return stable.version if stable else None

    def endpoint(self) -> Endpoint:
        """The model's endpoint."""
        return self.rollouts.endpoint(ENDPOINT)


def _intake(dropped: Path | Mapping[str, Path], *, filename: str, **_: object) -> Intake:
    path = dropped if isinstance(dropped, Path) else dropped["model.onnx"]
    if path.read_bytes() == b"bad":
        raise DropRefusedError(RefusalCode.NOT_ONNX, f"{filename} is not an ONNX model")
    files = {} if isinstance(dropped, Path) else {name: file for name, file in dropped.items() if name.endswith(".bin")}
    return Intake(
        manifest=Manifest(task=Task.CLASSIFICATION, author=_word(path, "by")),
        model=_part(path),
        external={name: _part(file) for name, file in files.items()},
    )


def _part(path: Path) -> StoredPart:
    content = path.read_bytes()
    return StoredPart(path=path, digest=Digest(digest_of_bytes(content)), size_bytes=len(content))


def _parse_manifest(path: Path, **_: object) -> Manifest:
    try:
        return parse_manifest(path.read_bytes())
    except InvalidInputError as error:
        raise DropRefusedError(RefusalCode.BAD_MANIFEST, str(error)) from error


def _validation(*, model: ModelFiles, **_: object) -> Validation:
    outcome = Outcome.FAIL if b"worse" in model.path.read_bytes() else Outcome.PASS
    verdict = Verdict(check="accuracy", outcome=outcome, sentence=f"the stand-in says {outcome}", n=100)
    inputs = _word(model.path, "takes") if b"takes:" in model.path.read_bytes() else "x"
    report = ValidationReport(outcome=outcome, verdicts=(verdict,), signature=_signature(inputs))
    return Validation(report=report, golden=None)


def _word(path: Path, name: str) -> str:
    """What a dropped file says after `name:`, up to a space."""
    words = path.read_bytes().decode(errors="replace").split()
    return next((word.removeprefix(f"{name}:") for word in words if word.startswith(f"{name}:")), "")


def _signature(inputs: str) -> Signature | None:
    specs = tuple(TensorSpec(name=name, datatype="FP32", shape=(FREE, 4)) for name in inputs.split(",") if name)
    return Signature(inputs=specs, outputs=()) if specs else None
