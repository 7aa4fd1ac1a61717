"""The manifests keep the rules, and each rule sees when they do not."""

from collections.abc import Callable

import pytest

from tests.infra import k8s_rules as rules
from tests.infra import k8s_safeguards as safeguards
from tests.infra.k8s import OVERLAYS, Resource, of_kind, overlay, pod_of, the

type Break = Callable[[list[Resource]], object]


@pytest.mark.parametrize("name", OVERLAYS)
@pytest.mark.parametrize("rule", rules.RULES, ids=lambda rule: rule.__name__)
def test_an_overlay_keeps_the_rule(name: str, rule: rules.Rule) -> None:
    assert list(rule(overlay(name))) == []


def _deployment(resources: list[Resource]) -> Resource:
    return the(resources, "Deployment", "slipway-serving")


def _pod(resources: list[Resource]) -> Resource:
    spec: Resource = pod_of(_deployment(resources))["spec"]
    return spec


def _container(resources: list[Resource]) -> Resource:
    found: Resource = _pod(resources)["containers"][0]
    return found


def _environment(resources: list[Resource]) -> dict[str, str]:
    name = _container(resources)["envFrom"][0]["configMapRef"]["name"]
    data: dict[str, str] = the(resources, "ConfigMap", name)["data"]
    return data


def _listener(resources: list[Resource]) -> Resource:
    found: Resource = the(resources, "Gateway", "slipway")["spec"]["listeners"][0]
    return found


def _route(resources: list[Resource]) -> Resource:
    found: Resource = the(resources, "HTTPRoute", "slipway-serving")["spec"]
    return found


def _second_service(resources: list[Resource]) -> None:
    service = the(resources, "Service", "slipway-serving")
    resources.append(service | {"metadata": service["metadata"] | {"name": "second"}})


def _scaled_twice(resources: list[Resource]) -> None:
    resources += of_kind(overlay("production-keda"), "ScaledObject")


BREAKS: list[tuple[str, rules.Rule, Break, str]] = [
    (
        "no limit of memory",
        safeguards.resources_are_asked_for,
        lambda r: _container(r)["resources"]["limits"].pop("memory"),
        "no limit",
    ),
    (
        "too little processor",
        safeguards.resources_are_asked_for,
        lambda r: _container(r)["resources"]["requests"].update(cpu="50m"),
        "least",
    ),
    (
        "memory overcommitted",
        safeguards.resources_are_asked_for,
        lambda r: _container(r)["resources"]["requests"].update(memory="1Gi"),
        "run out",
    ),
    (
        "request over limit",
        safeguards.resources_are_asked_for,
        lambda r: _container(r)["resources"]["requests"].update(cpu="9"),
        "more cpu",
    ),
    (
        "no readiness probe",
        safeguards.probes_are_there,
        lambda r: _container(r).pop("readinessProbe"),
        "readinessProbe",
    ),
    (
        "probe of no port",
        safeguards.probes_are_there,
        lambda r: _container(r)["livenessProbe"]["httpGet"].update(port="admin"),
        "'admin'",
    ),
    (
        "latest",
        safeguards.images_are_pinned,
        lambda r: _container(r).update(image="a.azurecr.io/slipway-serving:latest"),
        "latest",
    ),
    (
        "a tag",
        safeguards.images_are_pinned,
        lambda r: _container(r).update(image="a.azurecr.io/slipway-serving:1.2"),
        "no digest",
    ),
    (
        "a stranger's image",
        safeguards.images_are_pinned,
        lambda r: _container(r).update(image=f"a/b@sha256:{'0' * 64}"),
        "registry",
    ),
    (
        "not spread over zones",
        safeguards.pods_are_spread,
        lambda r: _pod(r)["topologySpreadConstraints"].pop(0),
        "zone",
    ),
    (
        "spread by force",
        safeguards.pods_are_spread,
        lambda r: _pod(r)["topologySpreadConstraints"][0].update(whenUnsatisfiable="DoNotSchedule"),
        "may wait",
    ),
    (
        "spread among others",
        safeguards.pods_are_spread,
        lambda r: _pod(r)["topologySpreadConstraints"][1]["labelSelector"].update(matchLabels={"a": "b"}),
        "not of",
    ),
    ("two services of one selector", safeguards.selectors_are_unique, _second_service, "selector of"),
    (
        "a service of nothing",
        safeguards.selectors_are_unique,
        lambda r: the(r, "Service", "slipway-serving")["spec"].update(selector={"a": "b"}),
        "0 Deployments",
    ),
    (
        "a service's port",
        safeguards.selectors_are_unique,
        lambda r: the(r, "Service", "slipway-serving")["spec"]["ports"][0].update(targetPort="web"),
        "'web'",
    ),
    (
        "a label of AKS's",
        safeguards.labels_are_ours,
        lambda r: pod_of(_deployment(r))["metadata"]["labels"].update({"kubernetes.azure.com/x": "y"}),
        "reserved",
    ),
    ("root", safeguards.pods_are_restricted, lambda r: _pod(r)["securityContext"].pop("runAsNonRoot"), "root"),
    (
        "a low user",
        safeguards.pods_are_restricted,
        lambda r: _pod(r)["securityContext"].update(runAsUser=1000),
        "user of the node",
    ),
    (
        "no seccomp",
        safeguards.pods_are_restricted,
        lambda r: _pod(r)["securityContext"].pop("seccompProfile"),
        "seccomp",
    ),
    (
        "a token of Kubernetes'",
        safeguards.pods_are_restricted,
        lambda r: _pod(r).pop("automountServiceAccountToken"),
        "token",
    ),
    (
        "the node's network",
        safeguards.pods_are_restricted,
        lambda r: _pod(r).update(hostNetwork=True),
        "namespaces of its node",
    ),
    (
        "the node's disk",
        safeguards.pods_are_restricted,
        lambda r: _pod(r)["volumes"].append({"name": "h", "hostPath": {"path": "/"}}),
        "not allowed",
    ),
    (
        "a volume without end",
        safeguards.pods_are_restricted,
        lambda r: _pod(r)["volumes"][0].update(emptyDir={}),
        "without a limit",
    ),
    (
        "more privileges",
        safeguards.containers_are_restricted,
        lambda r: _container(r)["securityContext"].pop("allowPrivilegeEscalation"),
        "gain",
    ),
    (
        "capabilities",
        safeguards.containers_are_restricted,
        lambda r: _container(r)["securityContext"]["capabilities"].update(add=["NET_RAW"]),
        "capabilities",
    ),
    (
        "a root that is written to",
        safeguards.containers_are_restricted,
        lambda r: _container(r)["securityContext"].update(readOnlyRootFilesystem=False),
        "root filesystem",
    ),
    (
        "the node's port",
        safeguards.containers_are_restricted,
        lambda r: _container(r)["ports"][0].update(hostPort=80),
        "port of its node",
    ),
    (
        "a lax namespace",
        safeguards.namespaces_enforce,
        lambda r: the(r, "Namespace", "slipway")["metadata"]["labels"].update(
            {"pod-security.kubernetes.io/enforce": "privileged"}
        ),
        "privileged",
    ),
    (
        "another's namespace",
        safeguards.namespaces_enforce,
        lambda r: _deployment(r)["metadata"].update(namespace="default"),
        "default",
    ),
    (
        "pods missing in an update",
        rules.updates_lose_nothing,
        lambda r: _deployment(r)["spec"]["strategy"]["rollingUpdate"].update(maxUnavailable=1),
        "updated with",
    ),
    ("a number of pods", rules.updates_lose_nothing, lambda r: _deployment(r)["spec"].update(replicas=3), "undoes"),
    ("two scalers", rules.one_scaler, _scaled_twice, "2 resources"),
    (
        "a scaler of nothing",
        rules.one_scaler,
        lambda r: of_kind(r, "HorizontalPodAutoscaler")[0]["spec"]["scaleTargetRef"].update(name="x"),
        "there is not",
    ),
    (
        "one pod",
        rules.one_scaler,
        lambda r: of_kind(r, "HorizontalPodAutoscaler")[0]["spec"].update(minReplicas=1),
        "keeps 1",
    ),
    (
        "another aim",
        rules.one_scaler,
        lambda r: of_kind(r, "HorizontalPodAutoscaler")[0]["spec"]["metrics"].pop(),
        "aims at",
    ),
    (
        "no budget",
        rules.disruptions_are_bounded,
        lambda r: r.remove(the(r, "PodDisruptionBudget", "slipway-serving")),
        "0 disruption",
    ),
    (
        "a budget of all",
        rules.disruptions_are_bounded,
        lambda r: the(r, "PodDisruptionBudget", "slipway-serving")["spec"].update(maxUnavailable="100%"),
        "exactly one",
    ),
    (
        "a budget of others",
        rules.disruptions_are_bounded,
        lambda r: the(r, "PodDisruptionBudget", "slipway-serving")["spec"]["selector"].update(matchLabels={"a": "b"}),
        "0 disruption",
    ),
    (
        "killed too soon",
        rules.draining_has_time,
        lambda r: _pod(r).update(terminationGracePeriodSeconds=30),
        "killed after 30",
    ),
    (
        "stopped too soon",
        rules.draining_has_time,
        lambda r: _container(r)["lifecycle"]["preStop"]["sleep"].update(seconds=1),
        "heard",
    ),
    ("drained too soon", rules.draining_has_time, lambda r: _environment(r).update(SLIPWAY_DRAIN_S="2"), "not ready"),
    (
        "drained for too long",
        rules.draining_has_time,
        lambda r: _environment(r).update(SLIPWAY_DRAIN_S="60"),
        "may need",
    ),
    (
        "requests that take long",
        rules.draining_has_time,
        lambda r: _environment(r).pop("SLIPWAY_TIMEOUT_S"),
        "is given",
    ),
    (
        "an impatient probe",
        rules.draining_has_time,
        lambda r: _container(r)["livenessProbe"].update(failureThreshold=3),
        "liveness",
    ),
    (
        "too many workers",
        rules.workers_have_cores,
        lambda r: _environment(r).update(SLIPWAY_WORKERS="4"),
        "SLIPWAY_WORKERS is 4",
    ),
    ("one worker unasked", rules.workers_have_cores, lambda r: _environment(r).pop("SLIPWAY_WORKERS"), "None"),
    ("a cache on the image", rules.disk_is_enough, lambda r: _environment(r).update(SLIPWAY_CACHE_DIR="/opt"), "/opt"),
    (
        "a disk too small",
        rules.disk_is_enough,
        lambda r: _container(r)["resources"]["limits"].update({"ephemeral-storage": "1Gi"}),
        "evicted",
    ),
    (
        "memory for which the disk is too small",
        rules.disk_is_enough,
        lambda r: _container(r)["resources"]["limits"].update(memory="3Gi"),
        "a candidate has it evicted",
    ),
    ("services' variables", rules.settings_are_only_ours, lambda r: _pod(r).pop("enableServiceLinks"), "variables"),
    (
        "settings that are not there",
        rules.references_hold,
        lambda r: _container(r)["envFrom"][0]["configMapRef"].update(name="x"),
        "ConfigMap x",
    ),
    (
        "an account that is not there",
        rules.references_hold,
        lambda r: _pod(r).update(serviceAccountName="x"),
        "ServiceAccount x",
    ),
    (
        "metrics of no port",
        rules.references_hold,
        lambda r: of_kind(r, "PodMonitor")[0]["spec"]["podMetricsEndpoints"][0].update(port="metrics"),
        "'metrics'",
    ),
    (
        "metrics of no pod",
        rules.references_hold,
        lambda r: of_kind(r, "PodMonitor")[0]["spec"]["selector"].update(matchLabels={"a": "b"}),
        "no pod",
    ),
    (
        "a route to nothing",
        rules.references_hold,
        lambda r: _route(r)["rules"][0]["backendRefs"][0].update(port=80),
        "slipway-serving:80",
    ),
    (
        "a route of no listener",
        rules.references_hold,
        lambda r: _route(r)["parentRefs"][0].update(sectionName="http"),
        "there is not",
    ),
    (
        "a route of the wrong listener",
        rules.references_hold,
        lambda r: _route(r)["parentRefs"][0].update(sectionName="grpc"),
        "does not take",
    ),
    (
        "a route of another host",
        rules.references_hold,
        lambda r: _route(r).update(hostnames=["x.invalid"]),
        "names hosts",
    ),
    (
        "a closed listener",
        rules.references_hold,
        lambda r: _listener(r)["allowedRoutes"]["namespaces"]["selector"].update(
            matchLabels={"kubernetes.io/metadata.name": "x"}
        ),
        "namespace",
    ),
    ("plain HTTP", rules.tls_ends_at_the_gateway, lambda r: _listener(r).update(protocol="HTTP"), "without TLS"),
    (
        "a certificate that is not renewed",
        rules.tls_ends_at_the_gateway,
        lambda r: _listener(r)["tls"]["options"].update(
            {"kubernetes.azure.com/tls-cert-keyvault-uri": "https://v.vault.azure.net/certificates/slipway/1"}
        ),
        "without a version",
    ),
    (
        "an account elsewhere",
        rules.tls_ends_at_the_gateway,
        lambda r: the(r, "ServiceAccount", "slipway-gateway")["metadata"].update(namespace="slipway"),
        "does not have",
    ),
    (
        "an account of nobody",
        rules.tls_ends_at_the_gateway,
        lambda r: the(r, "ServiceAccount", "slipway-gateway")["metadata"].pop("labels"),
        "without an identity",
    ),
    (
        "no identity",
        rules.identities_are_given,
        lambda r: the(r, "ServiceAccount", "slipway-serving")["metadata"].pop("annotations"),
        "no identity",
    ),
    (
        "an identity unasked",
        rules.identities_are_given,
        lambda r: pod_of(_deployment(r))["metadata"]["labels"].pop("azure.workload.identity/use"),
        "does not ask",
    ),
    (
        "a secret",
        rules.identities_are_given,
        lambda r: r.append({"kind": "Secret", "metadata": {"name": "s"}}),
        "secret",
    ),
    (
        "a connection string",
        rules.identities_are_given,
        lambda r: _environment(r).update(SLIPWAY_STORAGE_CONNECTION="x"),
        "identities alone",
    ),
    (
        "metrics for all",
        rules.only_predictions_are_public,
        lambda r: _route(r)["rules"][0]["matches"].append({"path": {"type": "Exact", "value": "/metrics"}}),
        "/metrics",
    ),
    (
        "everything for all",
        rules.only_predictions_are_public,
        lambda r: _route(r)["rules"][0].pop("matches"),
        "/models/reload",
    ),
]


@pytest.mark.parametrize(("rule", "broken", "said"), [case[1:] for case in BREAKS], ids=[case[0] for case in BREAKS])
def test_a_rule_sees_what_breaks_it(rule: rules.Rule, broken: Break, said: str) -> None:
    resources = overlay("production")

    broken(resources)

    assert said in " | ".join(rule(resources))


def test_each_rule_is_broken_once() -> None:
    assert {case[1] for case in BREAKS} == set(rules.RULES)
