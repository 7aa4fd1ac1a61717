"""The manifests speak of the server as it is: its settings, its ports, its paths, its metrics."""

import re
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
import yaml
from aks_serving import openapi, prometheus
from aks_serving import settings as server_settings
from aks_serving.settings import Settings
from aks_serving.storage_access import access

from shared.core.errors import InvalidInputError
from shared.core.logs import LOG_FORMAT
from shared.core.otel import ENDPOINTS, is_wanted
from tests.infra.k8s import OVERLAYS, Resource, composed, of_kind, overlay, pod_of, settings, the
from tests.serving.processes import Server, dead_connection

IDENTITY = {"AZURE_FEDERATED_TOKEN_FILE": "/var/run/secrets/azure/tokens/azure-identity-token"}
"""What the cluster's webhook adds to a pod that asks for its identity."""


def _container(resources: list[Resource]) -> Resource:
    (found,) = pod_of(the(resources, "Deployment", "slipway-serving"))["spec"]["containers"]
    container: Resource = found
    return container


def _ports(resources: list[Resource]) -> dict[str, int]:
    return {port["name"]: port["containerPort"] for port in _container(resources)["ports"]}


def _known() -> set[str]:
    """The settings that the server reads, by its own words."""
    source = Path(server_settings.__file__).read_text("utf-8")
    return set(re.findall(r'"(SLIPWAY_[A-Z_]+)"', source)) | {LOG_FORMAT, *ENDPOINTS}


@pytest.mark.parametrize("name", OVERLAYS)
def test_the_server_knows_each_setting(name: str) -> None:
    resources = overlay(name)
    given = settings(resources).keys() | {entry["name"] for entry in _container(resources)["env"]}

    assert given <= _known(), f"not read by the server: {sorted(given - _known())}"
    assert len(_known()) > 25


@pytest.mark.parametrize("name", OVERLAYS)
def test_the_server_starts_with_them_as_it_should_in_a_pod(name: str) -> None:
    resources = overlay(name)
    found = settings(resources)

    read = Settings.from_env(found)

    assert {"http": read.port, "grpc": read.grpc_port} == _ports(resources)
    assert read.bind == "0.0.0.0", "a pod is asked at its address, not at its own loopback"  # noqa: S104 - as it should
    assert access(read, found | IDENTITY).config["credential_type"] == "workload_identity"
    assert is_wanted(found)
    assert found[LOG_FORMAT] == "json"


@pytest.mark.parametrize("left_out", ["SLIPWAY_BLOB_URL", "SLIPWAY_CACHE_DIR"])
def test_what_the_server_must_be_told_is_not_left_to_the_image(left_out: str) -> None:
    found = settings(overlay("production"))
    found.pop(left_out)

    with pytest.raises(InvalidInputError, match=left_out):
        Settings.from_env(found)


def test_the_pod_has_its_own_name_in_its_windows() -> None:
    (entry,) = _container(overlay("production"))["env"]

    assert (entry["name"], entry["valueFrom"]) == ("SLIPWAY_POD", {"fieldRef": {"fieldPath": "metadata.name"}})


def test_spans_go_to_the_collector_where_it_listens() -> None:
    resources = overlay("production")
    service = the(resources, "Service", "slipway-otel-collector")
    (port,) = service["spec"]["ports"]
    (config,) = [c for c in of_kind(resources, "ConfigMap") if "azure.yaml" in c["data"]]
    told = yaml.safe_load(config["data"]["azure.yaml"])
    name = f"{service['metadata']['name']}.{service['metadata']['namespace']}.svc.cluster.local"

    assert settings(resources)["OTEL_EXPORTER_OTLP_ENDPOINT"] == f"http://{name}:{port['port']}"
    assert told["receivers"]["otlp"]["protocols"] == {"http": {"endpoint": f"0.0.0.0:{port['port']}"}}


def test_the_collector_uses_what_it_declares() -> None:
    resources = overlay("production")
    (config,) = [c for c in of_kind(resources, "ConfigMap") if "azure.yaml" in c["data"]]
    told = yaml.safe_load(config["data"]["azure.yaml"])
    pipeline = told["service"]["pipelines"]["traces"]
    (container,) = pod_of(the(resources, "Deployment", "slipway-otel-collector"))["spec"]["containers"]
    health = {port["name"]: port["containerPort"] for port in container["ports"]}["health"]

    for kind in ("receivers", "processors", "exporters"):
        assert set(pipeline[kind]) == told[kind].keys()
    assert set(told["service"]["extensions"]) == told["extensions"].keys()
    assert told["exporters"]["otlphttp/azure"]["auth"]["authenticator"] in told["extensions"]
    assert told["extensions"]["health_check"]["endpoint"] == f"0.0.0.0:{health}"
    given = {entry["name"] for entry in container["env"]} | {"AZURE_CLIENT_ID", "AZURE_TENANT_ID", *IDENTITY}
    assert set(re.findall(r"\$\{env:(\w+)\}", config["data"]["azure.yaml"])) <= given


def test_a_second_receiver_of_spans_is_added_to_the_first(tmp_path: Path) -> None:
    resources = composed(tmp_path, "overlays/production", "components/otlp")
    (container,) = pod_of(the(resources, "Deployment", "slipway-otel-collector"))["spec"]["containers"]
    (config,) = [c for c in of_kind(resources, "ConfigMap") if "azure.yaml" in c["data"]]
    told = {name: yaml.safe_load(text) for name, text in config["data"].items()}
    exporters = [name for each in told.values() for name in each["exporters"]]

    assert container["args"] == [f"--config=/etc/collector/{name}" for name in ("azure.yaml", "otlp.yaml")]
    # The later file's list stands in place of the earlier one's, so that it must name both.
    assert told["otlp.yaml"]["service"]["pipelines"]["traces"] == {"exporters": exporters}


def test_routes_lead_to_paths_that_the_server_has() -> None:
    described = yaml.safe_load(openapi.document())["paths"]
    matches = [
        match
        for route in of_kind(overlay("production"), "HTTPRoute")
        for rule in route["spec"]["rules"]
        for match in rule["matches"]
    ]

    assert {match["path"]["value"] for match in matches} == {"/predict", "/feedback", "/openapi.json", "/v2"}
    for match in matches:
        operations = described[match["path"]["value"]]
        assert match.get("method", "GET").lower() in operations


def test_the_scaler_asks_for_a_metric_that_the_server_has() -> None:
    (scaled,) = of_kind(overlay("production-keda"), "ScaledObject")
    (query,) = [t["metadata"]["query"] for t in scaled["spec"]["triggers"] if t["type"] == "prometheus"]
    names = {family.name for family in prometheus.families(prometheus.Facts(totals={}, servings={}))}

    (asked,) = re.findall(r"(\w+)\{", query)
    assert asked in names


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The server with the settings of its pod, but for what a test cannot have: the ports, the disk, the storage."""
    folder = tmp_path_factory.mktemp("server")
    found = settings(overlay("staging"))
    for name in ("SLIPWAY_BLOB_URL", *ENDPOINTS):
        found.pop(name, None)
    mine = {
        "PATH": "/usr/bin:/bin",
        "SLIPWAY_STORAGE_CONNECTION": dead_connection(),
        "SLIPWAY_CACHE_DIR": str(folder / "cache"),
        "SLIPWAY_PORT": "0",
        "SLIPWAY_GRPC_PORT": "0",
        "SLIPWAY_DRAIN_S": "0.1",
    }
    made = Server(found | mine, folder / "log")
    yield made
    made.close()


def test_probes_and_prometheus_ask_for_what_the_server_answers(server: Server) -> None:
    resources = overlay("production")
    probes = {kind: _container(resources)[kind]["httpGet"] for kind in ("startupProbe", "livenessProbe")}
    ready = _container(resources)["readinessProbe"]["httpGet"]
    (scraped,) = of_kind(resources, "PodMonitor")[0]["spec"]["podMetricsEndpoints"]

    assert {kind: server.http.get(get["path"]).status_code for kind, get in probes.items()} == {
        "startupProbe": 200,
        "livenessProbe": 200,
    }
    # Alive without storage, so that no probe kills a pod for an outage; and not ready before it has seen a plan.
    assert (server.http.get(ready["path"]).status_code, server.http.get(ready["path"]).json()["ready"]) == (503, False)
    assert server.http.get(scraped["path"]).text.startswith("# ")
    assert {get["port"] for get in (*probes.values(), ready)} | {scraped["port"]} == {"http"}


def test_the_route_of_grpc_names_the_service_that_answers(server: Server) -> None:
    (route,) = of_kind(overlay("production"), "GRPCRoute")
    (match,) = route["spec"]["rules"][0]["matches"]

    with grpc.insecure_channel(server.grpc_address()) as channel:
        answer = channel.unary_unary(f"/{match['method']['service']}/ServerLive")(b"", timeout=20)

    assert answer == b"\x08\x01"


def test_it_ends_as_a_pod_should(server: Server) -> None:
    assert server.stop() == 0
