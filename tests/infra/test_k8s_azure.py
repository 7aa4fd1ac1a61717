"""The manifests and the templates of Azure mean the same cluster: identities, addresses, versions."""

from collections.abc import Iterator

import pytest

from tests.infra.bicep_duties import SERVICE_ACCOUNTS, deployed, of_type, parameters_of
from tests.infra.bicep_values import Made
from tests.infra.k8s import ROOT, VERSION, build, of_kind, overlay, the

BICEP = ROOT / "infra" / "bicep"


def _made(environment: str, **given: str) -> list[Made]:
    return list(deployed(BICEP, parameters_of(BICEP, environment) | given).resources())


def _subjects() -> Iterator[str]:
    for account in of_kind(overlay("production-keda"), "ServiceAccount"):
        yield f"system:serviceaccount:{account['metadata']['namespace']}:{account['metadata']['name']}"
    # It asks Prometheus in our name, as an identity of ours that its own account may use.
    assert of_kind(overlay("production-keda"), "TriggerAuthentication")
    yield "system:serviceaccount:kube-system:keda-operator"
    # Flux reads a container as an identity of ours, and has no secret for it.
    (bucket,) = of_kind(build(ROOT / "aks-serving" / "gitops" / "production"), "Bucket")
    assert (bucket["spec"]["provider"], "secretRef" in bucket["spec"]) == ("azure", False)
    yield "system:serviceaccount:flux-system:source-controller"


def test_each_account_has_an_identity_that_trusts_it_and_each_identity_an_account() -> None:
    assert sorted(_subjects()) == sorted(SERVICE_ACCOUNTS.values())


@pytest.mark.parametrize("environment", ["dev", "staging", "production"])
def test_the_server_may_reach_the_subnet_of_the_private_endpoints(environment: str) -> None:
    subnets = {
        subnet["name"]: subnet["properties"]["addressPrefix"]
        for network in of_type(_made(environment), "Microsoft.Network/virtualNetworks")
        for subnet in network.properties["subnets"]
    }
    policy = the(overlay(environment), "NetworkPolicy", "serving-to-storage")

    assert policy["spec"]["egress"][0]["to"] == [{"ipBlock": {"cidr": subnets["snet-endpoints"]}}]


@pytest.mark.parametrize("environment", ["dev", "staging", "production"])
def test_the_schemas_are_of_the_clusters_version(environment: str) -> None:
    clusters = of_type(_made(environment), "Microsoft.ContainerService/managedClusters")

    assert [cluster.properties["kubernetesVersion"].split(".")[:2] for cluster in clusters] == [VERSION.split(".")]
    for namespace in of_kind(overlay(environment), "Namespace"):
        assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce-version"] == f"v{VERSION}"


@pytest.mark.parametrize("environment", ["dev", "staging", "production"])
def test_the_cluster_gives_flux_the_folder_of_its_environment_and_no_name_twice(environment: str) -> None:
    resources = _made(environment, gitRepositoryUrl="https://github.com/somebody/slipway")
    (given,) = of_type(resources, "Microsoft.KubernetesConfiguration/fluxConfigurations")
    steps = given.properties["kustomizations"]
    ours = build(ROOT / "aks-serving" / "gitops" / environment)

    assert [step["path"] for step in steps.values()] == [f"./aks-serving/gitops/{environment}"]
    assert {found["metadata"]["namespace"] for found in ours} == {given.properties["namespace"]}
    # The add-on makes a GitRepository of the configuration's name, and a Kustomization for each of its steps.
    theirs = {("GitRepository", given.name), *(("Kustomization", f"{given.name}-{name}") for name in steps)}
    assert theirs.isdisjoint((found["kind"], found["metadata"]["name"]) for found in ours)


@pytest.mark.parametrize("environment", ["dev", "staging", "production"])
def test_the_safeguards_leave_out_the_namespace_whose_pods_an_addon_makes(environment: str) -> None:
    (found,) = of_type(_made(environment), "Microsoft.ContainerService/deploymentSafeguards")

    assert found.properties["podSecurityStandardsLevel"] == "Restricted"
    assert "slipway-gateway" in found.properties["excludedNamespaces"]
    assert "slipway" not in found.properties["excludedNamespaces"]
