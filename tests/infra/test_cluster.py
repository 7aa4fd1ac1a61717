"""The cluster is one on which the manifests of its environment can run as they are meant to."""

import math
from collections.abc import Iterator
from typing import Any

import pytest

from tests.infra.bicep_duties import deployed, of_type, parameters_of
from tests.infra.bicep_values import Made
from tests.infra.k8s import ROOT, Resource, of_kind, overlay, the

BICEP = ROOT / "infra" / "bicep"
ENVIRONMENTS = ("dev", "staging", "production")
CORES = {"Standard_D2ds_v5": 2, "Standard_D4ds_v5": 4, "Standard_D8ds_v5": 8, "Standard_D16ds_v5": 16}
RESERVED_CORES = {2: 0.10, 4: 0.14, 8: 0.18, 16: 0.26}
"""What AKS keeps of a node for itself, by its cores."""
ADD_ONS_CORES = 0.9
"""What the add-ons' pods ask for on each node; not measured, and rather too much."""


def made(environment: str, **other: Any) -> list[Made]:
    """What an environment comes to."""
    return list(deployed(BICEP, parameters_of(BICEP, environment) | other).resources())


def cluster_of(found: list[Made]) -> dict[str, Any]:
    """The cluster's properties."""
    (cluster,) = of_type(found, "Microsoft.ContainerService/managedClusters")
    return cluster.properties


def missing(cluster: dict[str, Any], manifests: list[Resource]) -> Iterator[str]:
    """What the manifests need and the cluster is not, a sentence each."""
    facts = (
        ("GatewayClass approuting-istio", "ingressProfile.webAppRouting.enabled", True),
        ("Gateway API", "ingressProfile.gatewayAPI.installation", "Standard"),
        (
            "the Gateway's proxies",
            "ingressProfile.webAppRouting.gatewayAPIImplementations.appRoutingIstio.mode",
            "Enabled",
        ),
        ("no ingress-nginx", "ingressProfile.webAppRouting.nginx.defaultIngressControllerType", "None"),
        ("certificates from Key Vault", "addonProfiles.azureKeyvaultSecretsProvider.enabled", True),
        ("workload identity", "securityProfile.workloadIdentity.enabled", True),
        ("workload identity's issuer", "oidcIssuerProfile.enabled", True),
        ("network policies", "networkProfile.networkPolicy", "cilium"),
        ("their data plane", "networkProfile.networkDataplane", "cilium"),
        ("KEDA", "workloadAutoScalerProfile.keda.enabled", True),
        ("PodMonitor", "azureMonitorProfile.metrics.enabled", True),
        ("the safeguards", "addonProfiles.azurepolicy.enabled", True),
        ("the image cleaner", "securityProfile.imageCleaner.enabled", True),
        ("Azure's own roles", "aadProfile.enableAzureRBAC", True),
    )
    for what, path, wanted in facts:
        found: Any = cluster
        for part in path.split("."):
            found = found.get(part, {}) if isinstance(found, dict) else {}
        if found != wanted:
            yield f"{what}: {path} is {found!r}, not {wanted!r}"
    classes = {gateway["spec"]["gatewayClassName"] for gateway in of_kind(manifests, "Gateway")}
    if classes != {"approuting-istio"}:
        yield f"gateways are of {sorted(classes)}, and the add-on makes approuting-istio"


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_it_has_what_the_manifests_need(environment: str) -> None:
    assert list(missing(cluster_of(made(environment)), overlay(environment))) == []


@pytest.mark.parametrize(
    ("path", "value", "wanted"),
    [
        ("oidcIssuerProfile.enabled", False, "workload identity's issuer"),
        ("networkProfile.networkPolicy", "calico", "network policies"),
        ("workloadAutoScalerProfile.keda", {}, "KEDA"),
        ("ingressProfile.gatewayAPI", {"installation": "Disabled"}, "Gateway API"),
        ("addonProfiles.azurepolicy", {"enabled": False}, "the safeguards"),
    ],
)
def test_what_it_lacks_is_found(path: str, value: object, wanted: str) -> None:
    cluster = cluster_of(made("production"))
    *way, last = path.split(".")
    place = cluster
    for part in way:
        place = place[part]
    place[last] = value
    (said,) = missing(cluster, overlay("production"))
    assert said.startswith(wanted)


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_each_pool_is_in_the_subnet_and_the_zones_and_may_grow(environment: str) -> None:
    found = made(environment)
    given = parameters_of(BICEP, environment)
    pools = [*cluster_of(found)["agentPoolProfiles"]]
    pools += [pool.properties for pool in of_type(found, "Microsoft.ContainerService/managedClusters/agentPools")]
    assert {pool["mode"] for pool in pools} == {"System", "User"}
    for pool in pools:
        assert pool["vnetSubnetID"].endswith("/snet-nodes")
        assert (pool["availabilityZones"] or []) == given["zones"]
        assert pool["enableAutoScaling"]
        assert pool["minCount"] <= pool["count"] <= pool["maxCount"]
        assert pool["minCount"] >= len(given["zones"]), "a zone would be without a node"


def test_a_release_of_azures_is_taken_in_a_window_and_only_then() -> None:
    found = made("production")
    windows = of_type(found, "Microsoft.ContainerService/managedClusters/maintenanceConfigurations")
    assert {one.name for one in windows} == {"aksManagedAutoUpgradeSchedule", "aksManagedNodeOSUpgradeSchedule"}
    assert cluster_of(found)["autoUpgradeProfile"] == {"upgradeChannel": "patch", "nodeOSUpgradeChannel": "NodeImage"}


@pytest.mark.parametrize(("environment", "level"), [("dev", "Warn"), ("staging", "Enforce"), ("production", "Enforce")])
def test_the_safeguards_spare_only_namespaces_whose_pods_are_not_ours(environment: str, level: str) -> None:
    (safeguards,) = of_type(made(environment), "Microsoft.ContainerService/deploymentSafeguards")
    assert safeguards.properties["level"] == level
    assert safeguards.properties["podSecurityStandardsLevel"] == "Restricted"
    spared = set(safeguards.properties["excludedNamespaces"])
    ours = {one["metadata"]["namespace"] for one in of_kind(overlay(environment), "Deployment")}
    assert not spared & ours
    for namespace in of_kind(overlay(environment), "Namespace"):
        labels = namespace["metadata"]["labels"]
        restricted = labels["pod-security.kubernetes.io/enforce"] == "restricted"
        assert restricted or namespace["metadata"]["name"] in spared


def pods_of(nodes: int, size: str, asked: float) -> int:
    """How many pods that ask for so many cores have room."""
    cores = CORES[size]
    return nodes * math.floor((cores - RESERVED_CORES[cores] - ADD_ONS_CORES) / asked)


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_the_most_nodes_have_room_for_the_most_pods(environment: str) -> None:
    manifests = overlay(environment)
    (container,) = the(manifests, "Deployment", "slipway-serving")["spec"]["template"]["spec"]["containers"]
    most = the(manifests, "HorizontalPodAutoscaler", "slipway-serving")["spec"]["maxReplicas"]
    (pool,) = of_type(made(environment), "Microsoft.ContainerService/managedClusters/agentPools")
    room = pods_of(
        pool.properties["maxCount"], pool.properties["vmSize"], float(container["resources"]["requests"]["cpu"])
    )
    assert room >= most + 1, f"there is room for {room} pods, and an update of {most} needs one more"


def test_room_is_counted_without_what_azure_keeps() -> None:
    assert pods_of(3, "Standard_D4ds_v5", 2) == 3
    assert pods_of(1, "Standard_D8ds_v5", 2) == 3
    assert pods_of(2, "Standard_D2ds_v5", 2) == 0
