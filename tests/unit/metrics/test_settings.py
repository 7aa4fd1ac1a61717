"""The settings of metrics stores, and the stores that they come to."""

import pytest

from shared.core.errors import InvalidInputError
from shared.core.metrics_settings import MetricsSettings
from shared.metrics.log_analytics import LogAnalyticsStore
from shared.metrics.open import open_metrics
from shared.metrics.prometheus import PrometheusStore
from shared.metrics.web import Tokens
from shared.registry.rollout_policy import Provider

WORKSPACE = "00000000-0000-0000-0000-000000000001"


def test_without_settings_there_are_no_stores() -> None:
    assert open_metrics(MetricsSettings.from_env({"SLIPWAY_PROMETHEUS_URL": " "}), lambda scope: lambda: scope) == {}


def test_each_store_has_tokens_for_its_own_scope() -> None:
    scopes = []

    def tokens_for(scope: str) -> Tokens:
        scopes.append(scope)
        return lambda: scope

    settings = MetricsSettings.from_env(
        {
            "SLIPWAY_PROMETHEUS_URL": "https://amw.northeurope.prometheus.monitor.azure.com",
            "SLIPWAY_PROMETHEUS_AUTH": "identity",
            "SLIPWAY_LOG_ANALYTICS_WORKSPACE": WORKSPACE,
        }
    )
    stores = open_metrics(settings, tokens_for)
    assert isinstance(stores[Provider.PROMETHEUS], PrometheusStore)
    assert isinstance(stores[Provider.LOG_ANALYTICS], LogAnalyticsStore)
    assert scopes == ["https://prometheus.monitor.azure.com/.default", "https://api.loganalytics.io/.default"]


def test_a_plain_prometheus_gets_no_token() -> None:
    def none(scope: str) -> Tokens:
        raise AssertionError(scope)

    settings = MetricsSettings.from_env({"SLIPWAY_PROMETHEUS_URL": "http://prometheus.monitoring:9090/base"})
    assert list(open_metrics(settings, none)) == [Provider.PROMETHEUS]


@pytest.mark.parametrize(
    ("env", "name"),
    [
        ({"SLIPWAY_PROMETHEUS_URL": "prometheus:9090"}, "SLIPWAY_PROMETHEUS_URL"),
        ({"SLIPWAY_PROMETHEUS_URL": "https://user:secret@host"}, "SLIPWAY_PROMETHEUS_URL"),
        ({"SLIPWAY_PROMETHEUS_URL": "https://host/?a=b"}, "SLIPWAY_PROMETHEUS_URL"),
        ({"SLIPWAY_PROMETHEUS_URL": "https://host/a b"}, "SLIPWAY_PROMETHEUS_URL"),
        ({"SLIPWAY_PROMETHEUS_URL": "https://host:port"}, "SLIPWAY_PROMETHEUS_URL"),
        ({"SLIPWAY_PROMETHEUS_URL": "http://host", "SLIPWAY_PROMETHEUS_AUTH": "identity"}, "SLIPWAY_PROMETHEUS_URL"),
        ({"SLIPWAY_PROMETHEUS_AUTH": "basic"}, "SLIPWAY_PROMETHEUS_AUTH"),
        ({"SLIPWAY_LOG_ANALYTICS_WORKSPACE": "my-workspace"}, "SLIPWAY_LOG_ANALYTICS_WORKSPACE"),
        ({"SLIPWAY_LOG_ANALYTICS_URL": "http://host"}, "SLIPWAY_LOG_ANALYTICS_URL"),
    ],
)
def test_a_wrong_setting_is_named(env: dict[str, str], name: str) -> None:
    with pytest.raises(InvalidInputError, match=name) as caught:
        MetricsSettings.from_env(env)
    assert "secret" not in str(caught.value)
