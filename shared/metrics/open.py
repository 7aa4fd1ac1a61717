"""The metrics stores that the settings ask for. Only functions/_services.py and tests call this."""

from collections.abc import Callable

from shared.core.metrics_settings import MetricsSettings
from shared.metrics.log_analytics import LogAnalyticsStore
from shared.metrics.prometheus import AZURE_SCOPE, PrometheusStore
from shared.metrics.web import Tokens
from shared.registry.rollout_policy import Provider
from shared.rollout.queries import MetricsStore


def open_metrics(settings: MetricsSettings, tokens_for: Callable[[str], Tokens]) -> dict[Provider, MetricsStore]:
    """The stores by provider; one that no setting names is absent. `tokens_for` takes a scope. Nothing connects yet."""
    stores: dict[Provider, MetricsStore] = {}
    if settings.prometheus_url:
        tokens = tokens_for(AZURE_SCOPE) if settings.prometheus_by_identity else None
        stores[Provider.PROMETHEUS] = PrometheusStore(settings.prometheus_url, tokens=tokens)
    if settings.log_analytics_workspace:
        url = settings.log_analytics_url
        stores[Provider.LOG_ANALYTICS] = LogAnalyticsStore(
            url, settings.log_analytics_workspace, tokens=tokens_for(f"{url.rstrip('/')}/.default")
        )
    return stores
