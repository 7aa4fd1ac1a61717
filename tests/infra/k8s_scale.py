"""Rules of how many, how long and as whom: numbers that Kubernetes takes whatever they are.

Each takes all resources of an overlay and answers what is wrong, a sentence each, as those of tests.infra.k8s_rules.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any

import yaml

from tests.infra.k8s import Resource, of_kind, pod_of, servers, serving, settings, title

type Rule = Callable[[list[Resource]], Iterator[str]]

LEAST, MOST_PROVING, MOST = 2, 4, 20
"""Pods of servers: the fewest, the most where the shared ones have one worker each, the most that carry the load."""
WAITING = 8
"""Requests in flight for each worker at which there should be more pods: beyond, what waits makes most of a latency."""
CALM_S = 300
"""How long it must have been calm before pods go, since one that comes back loads its models anew."""
NODE_S = 300
"""How long a pod may wait for a node that is made for it."""
MONITOR = "https://monitor.azure.com/.default"
"""What Application Insights takes tokens of, at its OTLP endpoint as at the other."""


def as_many_as_there_should_be(resources: list[Resource]) -> Iterator[str]:
    """Row S15: from 2 to 20 pods where there is load, whoever counts them; to 4 where versions are proved."""
    wanted = MOST_PROVING if settings(resources)["SLIPWAY_WORKERS"] == "1" else MOST
    for scaler, _ in _scalers(resources):
        spec = scaler["spec"]
        least = spec.get("minReplicas", spec.get("minReplicaCount"))
        most = spec.get("maxReplicas", spec.get("maxReplicaCount"))
        if (least, most) != (LEAST, wanted):
            yield f"{title(scaler)} keeps {least} to {most} pods, not {LEAST} to {wanted}"
        fallback = spec.get("fallback", {}).get("replicas", least)
        if not LEAST <= fallback <= wanted:
            yield f"{title(scaler)} keeps {fallback} pods where it cannot ask"


def more_before_they_wait(resources: list[Resource]) -> Iterator[str]:
    """What is in flight calls for more pods while a pod's workers have some each to do, not once its queue is full."""
    for scaler, deployment in _scalers(resources):
        workers = int(settings(resources, deployment["metadata"]["name"])["SLIPWAY_WORKERS"])
        for trigger in scaler["spec"].get("triggers", []):
            if trigger["type"] != "prometheus":
                continue
            found = float(trigger["metadata"]["threshold"])
            if not workers <= found <= WAITING * workers:
                said = f"{workers} workers take {workers} to {WAITING * workers}"
                yield f"{title(scaler)} wants another pod for each {found:g} requests in flight; {said}"


def up_at_once_and_down_slowly(resources: list[Resource]) -> Iterator[str]:
    """No waiting on the way up; on the way down as long as a pod that comes back would cost."""
    for scaler, _ in _scalers(resources):
        spec = scaler["spec"]
        advanced = spec.get("advanced", {}).get("horizontalPodAutoscalerConfig", {})
        behaviour = spec.get("behavior", advanced.get("behavior", {}))
        up = behaviour.get("scaleUp", {}).get("stabilizationWindowSeconds")
        down = behaviour.get("scaleDown", {}).get("stabilizationWindowSeconds", 0)
        if up != 0 or down < CALM_S:
            yield f"{title(scaler)} waits {up} s before there are more pods and {down} s before there are fewer"
        if spec.get("cooldownPeriod", CALM_S) < CALM_S:
            yield f"{title(scaler)} is calm after {spec['cooldownPeriod']} s"


def updates_are_waited_for(resources: list[Resource]) -> Iterator[str]:
    """An update is given up only after a pod had a node made for it, and the time that its start may take."""
    for deployment in servers(resources):
        probe = serving(deployment)["startupProbe"]
        needed = NODE_S + probe["periodSeconds"] * probe["failureThreshold"]
        if (found := deployment["spec"].get("progressDeadlineSeconds", 600)) < needed:
            yield f"{title(deployment)} is given up after {found} s, and a pod of its may take {needed} s"


def the_server_answers_first(resources: list[Resource]) -> Iterator[str]:
    """The gateway waits longer than a server takes to refuse with a reason, also while that drains."""
    told = [settings(resources, one["metadata"]["name"]) for one in servers(resources)]
    takes_s = max(float(one.get("SLIPWAY_TIMEOUT_S", 30)) + float(one.get("SLIPWAY_DRAIN_S", 0.5)) for one in told)
    for route in of_kind(resources, "HTTPRoute", "GRPCRoute"):
        for rule in route["spec"]["rules"]:
            for name, given in rule.get("timeouts", {}).items():
                found = re.fullmatch(r"(\d+)s", given)
                if found is None or int(found[1]) <= takes_s:
                    yield f"{title(route)} ends a {name} after {given}, and a server may take {takes_s:g} s"


def a_proxy_stays(resources: list[Resource]) -> Iterator[str]:
    """Where nodes are drained, one of the gateway's proxies at least goes on, and one at least may go."""
    for config in of_kind(resources, "ConfigMap"):
        if "podDisruptionBudget" not in config["data"]:
            continue
        stays = _read(config, "podDisruptionBudget")["spec"]["minAvailable"]
        least = _read(config, "horizontalPodAutoscaler")["spec"]["minReplicas"]
        if not 1 <= stays < least:
            yield f"{title(config)} keeps {stays} of {least} proxies while nodes are drained"


def volumes_are_the_servers(resources: list[Resource]) -> Iterator[str]:
    """Volumes belong to the group that the server runs as, or it cannot write what it fetches."""
    for deployment in servers(resources):
        context = pod_of(deployment)["spec"]["securityContext"]
        if context.get("fsGroup") != context["runAsGroup"]:
            said = f"group {context['runAsGroup']}, and its volumes are of {context.get('fsGroup')}"
            yield f"{title(deployment)} runs as {said}"


def tokens_are_for_the_monitor(resources: list[Resource]) -> Iterator[str]:
    """The collector asks for tokens of the monitor, and for nothing that its identity could do beside."""
    for config in of_kind(resources, "ConfigMap"):
        for name in config["data"]:
            told = _read(config, name)
            extensions = told.get("extensions", {}) if isinstance(told, dict) else {}
            if "azureauth" in extensions and extensions["azureauth"].get("scopes") != [MONITOR]:
                yield f"{title(config)} asks for tokens of {extensions['azureauth'].get('scopes')}, not of {MONITOR}"


RULES: tuple[Rule, ...] = (
    as_many_as_there_should_be,
    more_before_they_wait,
    up_at_once_and_down_slowly,
    updates_are_waited_for,
    the_server_answers_first,
    a_proxy_stays,
    volumes_are_the_servers,
    tokens_are_for_the_monitor,
)


def _scalers(resources: list[Resource]) -> Iterator[tuple[Resource, Resource]]:
    """Each resource that says how many pods a Deployment of servers has, and that Deployment."""
    by_name = {deployment["metadata"]["name"]: deployment for deployment in servers(resources)}
    for scaler in of_kind(resources, "HorizontalPodAutoscaler", "ScaledObject"):
        if (name := scaler["spec"]["scaleTargetRef"]["name"]) in by_name:
            yield scaler, by_name[name]


def _read(config: Resource, name: str) -> Any:
    return yaml.safe_load(config["data"][name])
