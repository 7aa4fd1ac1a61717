"""Composes the services from the environment: the one place in the app that chooses adapters.

Each process composes once, on first use, so that importing the app connects to nothing.
"""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import cache

from shared.alerts.control import ControlAlerts
from shared.alerts.documents import Alert
from shared.alerts.mailbox import Mailbox
from shared.alerts.notifications import NotificationService
from shared.alerts.plans import PlanAlerts
from shared.alerts.service import AlertService
from shared.alerts.silences import Silence
from shared.alerts.sinks import open_sink
from shared.alerts.traffic import TrafficAlerts
from shared.approvals.service import ApprovalService
from shared.audit.service import AuditService
from shared.budgets.service import BudgetService
from shared.core.clock import SystemClock
from shared.core.errors import InvalidInputError, SlipwayError
from shared.core.settings import Settings, SinkSettings
from shared.deadletters.documents import DeadLetter
from shared.deadletters.service import DeadLetterService
from shared.events.retries import EventRetries
from shared.events.service import EventService
from shared.events.sinks import HttpSink
from shared.integrity.documents import ArtifactCheck
from shared.integrity.service import IntegrityService
from shared.lineage.service import LineageService
from shared.metrics.open import open_metrics
from shared.registration.documents import Drop
from shared.registration.service import RegistrationService
from shared.registry.alias_service import AliasService
from shared.registry.aliases import Alias
from shared.registry.documents import Model, ModelVersion
from shared.registry.service import RegistryService
from shared.retention.documents import RetentionRun
from shared.retention.reports import ReportRetention
from shared.retention.service import RetentionService
from shared.retention.uses import Uses
from shared.rollout.alerting import RolloutAlerts
from shared.rollout.dryrun import DryRuns
from shared.rollout.endpoint import Endpoint
from shared.rollout.service import RolloutService
from shared.rollout.stored_plans import StoredPlans
from shared.store.aggregate import Aggregate
from shared.store.open import open_blobs, open_documents, open_queues, open_tokens
from shared.store.outbox import Outbox
from shared.store.ports import BlobStore, DocumentStore
from shared.store.repository import Repository
from shared.sweep import SweepService
from shared.validation.champion import Champions
from shared.validation.sandbox import SandboxLimits
from shared.validation.service import ValidationService
from shared.watching.documents import DriftReport, Retraining
from shared.watching.evidence import StandingAlarms
from shared.watching.service import WatchService

_EVENT_GRID_SCOPE = "https://eventgrid.azure.net/.default"

_log = logging.getLogger(__name__)


class MisconfiguredError(SlipwayError):
    """A setting of the app is absent or wrong. No caller can help it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """What the functions call."""

    registry: RegistryService
    aliases: AliasService
    registration: RegistrationService
    validation: ValidationService
    rollouts: RolloutService
    audit: AuditService
    sweep: SweepService
    alerts: AlertService
    notifications: NotificationService
    dead_letters: DeadLetterService
    integrity: IntegrityService
    retention: RetentionService
    report_retention: ReportRetention
    lineage: LineageService
    approvals: ApprovalService
    events: EventService
    event_retries: EventRetries
    budgets: BudgetService
    rollout_alerts: RolloutAlerts
    traffic_alerts: TrafficAlerts
    control_alerts: ControlAlerts
    plans: StoredPlans
    plan_alerts: PlanAlerts
    dry_runs: DryRuns
    watching: WatchService
    documents: DocumentStore
    blobs: BlobStore


@cache
def services() -> Services:
    """The services of this process. Raises MisconfiguredError, and logs it, where a setting is absent or wrong."""
    try:
        return _composed(Settings.from_env(os.environ))
    except InvalidInputError as error:
        _log.error("the functions app is misconfigured: %s", error)
        raise MisconfiguredError(str(error)) from error


def _composed(settings: Settings) -> Services:
    clock = SystemClock()
    documents, blobs, queues = open_documents(settings), open_blobs(settings), open_queues(settings)
    tokens_for = open_tokens(settings.metrics.client_id)
    outbox = Outbox(documents, blobs, queues, clock, sinks=[sink.name for sink in settings.event_sinks])

    def repository[A: Aggregate](kind: type[A]) -> Repository[A]:
        return Repository(kind, documents, outbox)

    models, versions, drops = repository(Model), repository(ModelVersion), repository(Drop)
    endpoints, aliases = repository(Endpoint), repository(Alias)
    alerts, letters = repository(Alert), repository(DeadLetter)
    checks, runs = repository(ArtifactCheck), repository(RetentionRun)
    drift_reports, retraining = repository(DriftReport), repository(Retraining)
    limits = SandboxLimits()
    registry = RegistryService(models=models, versions=versions, documents=documents, clock=clock)
    alias_service = AliasService(aliases=aliases, registry=registry, documents=documents, clock=clock)
    registration = RegistrationService(
        models=models, versions=versions, drops=drops, blobs=blobs, clock=clock, limits=limits
    )
    rollouts = RolloutService(
        endpoints=endpoints,
        registry=registry,
        aliases=alias_service,
        documents=documents,
        blobs=blobs,
        clock=clock,
        stores=open_metrics(settings.metrics, tokens_for),
        findings=StandingAlarms(reports=drift_reports, policy_of=lambda name: registry.model(name).policy.drift),
    )
    mailboxes, silences = repository(Mailbox), repository(Silence)
    alert_service = AlertService(
        alerts=alerts,
        silences=silences,
        clock=clock,
        tells_after=timedelta(seconds=settings.alerts.group_wait_s) if settings.alerts.sinks else None,
    )
    plans = StoredPlans(endpoints=endpoints, blobs=blobs, clock=clock)
    dead_letters = DeadLetterService(letters=letters, alerts=alert_service, clock=clock)
    uses = Uses(endpoints=endpoints, aliases=aliases)
    audit = AuditService(
        documents,
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
    return Services(
        registry=registry,
        aliases=alias_service,
        registration=registration,
        validation=ValidationService(
            versions=versions,
            registry=registry,
            blobs=blobs,
            clock=clock,
            limits=limits,
            champion=Champions(aliases=aliases, endpoints=endpoints).champion,
        ),
        rollouts=rollouts,
        audit=audit,
        sweep=SweepService(
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
                drift_reports,
                retraining,
            ),
            versions=versions,
            registry=registry,
            registration=registration,
            rollouts=rollouts,
            queues=queues,
            clock=clock,
            grace=timedelta(seconds=settings.sweep_grace_s),
        ),
        alerts=alert_service,
        notifications=NotificationService(
            alerts=alerts,
            mailboxes=mailboxes,
            service=alert_service,
            sinks={sink.name: open_sink(sink, clock=clock) for sink in settings.alerts.sinks},
            settings=settings.alerts,
            clock=clock,
        ),
        dead_letters=dead_letters,
        integrity=IntegrityService(
            versions=versions, checks=checks, uses=uses, alerts=alert_service, blobs=blobs, clock=clock
        ),
        retention=RetentionService(
            registry=registry,
            rollouts=rollouts,
            versions=versions,
            drops=drops,
            runs=runs,
            uses=uses,
            blobs=blobs,
            clock=clock,
        ),
        report_retention=ReportRetention(
            models=models,
            endpoints=endpoints,
            reports=drift_reports,
            retraining=retraining,
            documents=documents,
            blobs=blobs,
            clock=clock,
        ),
        lineage=LineageService(registry=registry, aliases=alias_service, rollouts=rollouts, audit=audit, clock=clock),
        approvals=ApprovalService(
            endpoints=endpoints, rollouts=rollouts, registry=registry, keys=settings.approval_keys, clock=clock
        ),
        events=EventService(
            documents=documents,
            sinks={sink.name: _sink(sink, tokens_for(_EVENT_GRID_SCOPE)) for sink in settings.event_sinks},
            source=settings.event_source,
        ),
        event_retries=EventRetries(letters=letters, replays=dead_letters, clock=clock),
        budgets=BudgetService(endpoints=endpoints, documents=documents, blobs=blobs, clock=clock),
        dry_runs=DryRuns(rollouts=rollouts.rollouts, rollout=rollouts.rollout, blobs=blobs),
        watching=WatchService(
            endpoints=endpoints,
            reports=drift_reports,
            retraining=retraining,
            registry=registry,
            alerts=alert_service,
            documents=documents,
            blobs=blobs,
            clock=clock,
        ),
        rollout_alerts=RolloutAlerts(endpoints=endpoints, alerts=alert_service, clock=clock),
        traffic_alerts=TrafficAlerts(
            endpoints=endpoints, models=registry, documents=documents, alerts=alert_service, clock=clock
        ),
        control_alerts=ControlAlerts(endpoints=endpoints, documents=documents, alerts=alert_service, clock=clock),
        plans=plans,
        plan_alerts=PlanAlerts(plans=plans, alerts=alert_service, clock=clock),
        documents=documents,
        blobs=blobs,
    )


def _sink(settings: SinkSettings, tokens: Callable[[], str]) -> HttpSink:
    """A sink of lifecycle events, with what it authenticates by."""
    given = settings.token
    token = (lambda: given) if given else tokens if settings.identity else None
    return HttpSink(settings.name, settings.url, token=token, body_format=settings.format, streams=settings.streams)
