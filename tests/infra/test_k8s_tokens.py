"""With bearer tokens asked for, a pod is probed and scraped as without, by what the component and the guide say."""

import re
from pathlib import Path

import kubernetes_validate  # type: ignore[import-untyped]  # it has none
import pytest

from tests.infra import k8s_rules, k8s_scale
from tests.infra.k8s import (
    MANIFESTS,
    ROOT,
    VERSION,
    Resource,
    build,
    composed,
    of_kind,
    pod_of,
    servers,
    serving,
    settings,
)
from tests.infra.test_k8s_schemas import custom, problems
from tests.serving.processes import Server, dead_connection

OVERLAYS = ("staging", "production-keda", "production-dedicated")
TOKEN, OF_PROMETHEUS = "a-token-of-a-caller", "a-token-of-prometheus"


@pytest.fixture
def resources(tmp_path: Path, request: pytest.FixtureRequest) -> list[Resource]:
    folder = tmp_path / "overlay"
    folder.mkdir()
    return build(MANIFESTS / "namespaces") + composed(folder, f"overlays/{request.param}", "components/tokens")


def volume_of(deployment: Resource) -> Resource:
    (found,) = [one["projected"] for one in pod_of(deployment)["spec"]["volumes"] if one["name"] == "tokens"]
    volume: Resource = found
    return volume


@pytest.mark.parametrize("resources", OVERLAYS, indirect=True)
def test_the_component_keeps_the_rules_and_fits_the_schemas(resources: list[Resource]) -> None:
    assert [said for rule in (*k8s_rules.RULES, *k8s_scale.RULES) for said in rule(resources)] == []
    assert problems(custom(resources)) == []
    for found in of_kind(resources, "Deployment"):
        assert kubernetes_validate.validate(found, VERSION, strict=True) == VERSION


@pytest.mark.parametrize("resources", OVERLAYS, indirect=True)
def test_each_server_reads_the_file_that_is_mounted(resources: list[Resource]) -> None:
    assert servers(resources)
    for found in servers(resources):
        told = Path(settings(resources, found["metadata"]["name"])["SLIPWAY_TOKENS"])
        (mount,) = [one for one in serving(found)["volumeMounts"] if one["name"] == "tokens"]
        (source,) = volume_of(found)["sources"]
        assert mount["readOnly"]
        assert [Path(mount["mountPath"]) / one["path"] for one in source["secret"]["items"]] == [told]
        assert volume_of(found)["defaultMode"] == 0o440


@pytest.mark.parametrize("resources", ["staging"], indirect=True)
def test_the_secret_that_the_guide_makes_has_the_keys_that_are_read(resources: list[Resource]) -> None:
    guide = (ROOT / "docs" / "kubernetes.md").read_text()
    (made,) = re.findall(r"kubectl -n slipway create secret generic (\S+) (.*)", guide)
    (monitor,) = of_kind(resources, "PodMonitor")
    credentials = monitor["spec"]["podMetricsEndpoints"][0]["authorization"]["credentials"]
    (source,) = volume_of(servers(resources)[0])["sources"]

    assert {made[0]} == {credentials["name"], source["secret"]["name"]}
    assert set(re.findall(r"--from-file=(\w+)", made[1])) == {credentials["key"], source["secret"]["items"][0]["key"]}


@pytest.mark.parametrize("resources", ["staging"], indirect=True)
def test_probes_need_no_token_and_metrics_do(resources: list[Resource], tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text(f"{TOKEN}\n{OF_PROMETHEUS}\n")
    mine = {"SLIPWAY_STORAGE_CONNECTION": dead_connection(), "SLIPWAY_CACHE_DIR": str(tmp_path / "cache")}
    mine |= {"PATH": "/usr/bin:/bin", "SLIPWAY_PORT": "0", "SLIPWAY_TOKENS": str(tmp_path / "tokens")}
    server = Server(mine | {"SLIPWAY_DRAIN_S": "0.1"}, tmp_path / "log")
    (monitor,) = of_kind(resources, "PodMonitor")
    scraped = monitor["spec"]["podMetricsEndpoints"][0]
    container = serving(servers(resources)[0])
    try:
        asked = {
            name: container[name]["httpGet"]["path"] for name in ("startupProbe", "livenessProbe", "readinessProbe")
        }
        found = {name: server.http.get(path).status_code for name, path in asked.items()}
        by_token = server.http.get(scraped["path"], headers={"authorization": f"Bearer {OF_PROMETHEUS}"})
        without = server.http.get(scraped["path"])
    finally:
        server.close()

    assert found == {"startupProbe": 200, "livenessProbe": 200, "readinessProbe": 503}
    assert (by_token.status_code, without.status_code) == (200, 401)
    assert scraped["authorization"].keys() == {"credentials"}
