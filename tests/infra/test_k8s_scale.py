"""The manifests keep the rules of tests.infra.k8s_scale, and each rule sees when they do not."""

from collections.abc import Callable

import pytest

from shared.rollout import gateway
from tests.infra import k8s_scale as scale
from tests.infra.k8s import OVERLAYS, Resource, of_kind, overlay, pod_of, settings, the

type Break = Callable[[list[Resource]], object]
HPA, KEDA = "HorizontalPodAutoscaler", "ScaledObject"


@pytest.mark.parametrize("name", OVERLAYS)
@pytest.mark.parametrize("rule", scale.RULES, ids=lambda rule: rule.__name__)
def test_an_overlay_keeps_the_rule(name: str, rule: scale.Rule) -> None:
    assert list(rule(overlay(name))) == []


def _spec(resources: list[Resource], kind: str) -> Resource:
    found: Resource = the(resources, kind, "slipway-serving")["spec"]
    return found


def _down(resources: list[Resource]) -> Resource:
    (found,) = of_kind(resources, HPA, KEDA)
    spec = found["spec"]
    behaviour = spec.get("behavior") or spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    down: Resource = behaviour["scaleDown"]
    return down


def _told(resources: list[Resource], key: str, old: str, new: str) -> None:
    (config,) = [one for one in of_kind(resources, "ConfigMap") if key in one["data"]]
    assert old in config["data"][key]
    config["data"][key] = config["data"][key].replace(old, new)


BREAKS: list[tuple[str, scale.Rule, Break, str]] = [
    ("production", scale.as_many_as_there_should_be, lambda r: _spec(r, HPA).update(maxReplicas=10), "not 2 to 20"),
    ("staging", scale.as_many_as_there_should_be, lambda r: _spec(r, HPA).update(maxReplicas=20), "not 2 to 4"),
    ("production-keda", scale.as_many_as_there_should_be, lambda r: _spec(r, KEDA).update(maxReplicaCount=10), "to 10"),
    (
        "production-keda",
        scale.as_many_as_there_should_be,
        lambda r: _spec(r, KEDA)["fallback"].update(replicas=1),
        "1 pods where it cannot ask",
    ),
    (
        "production-keda",
        scale.more_before_they_wait,
        lambda r: _spec(r, KEDA)["triggers"][0]["metadata"].update(threshold="8000"),
        "each 8000 requests",
    ),
    (
        "production-keda",
        scale.more_before_they_wait,
        lambda r: _spec(r, KEDA)["triggers"][0]["metadata"].update(threshold="1"),
        "each 1 requests",
    ),
    (
        "production",
        scale.up_at_once_and_down_slowly,
        lambda r: _down(r).update(stabilizationWindowSeconds=0),
        "0 s before there are fewer",
    ),
    (
        "production-keda",
        scale.up_at_once_and_down_slowly,
        lambda r: _down(r).update(stabilizationWindowSeconds=0),
        "0 s before there are fewer",
    ),
    (
        "production-keda",
        scale.up_at_once_and_down_slowly,
        lambda r: _spec(r, KEDA).update(cooldownPeriod=30),
        "is calm after 30 s",
    ),
    (
        "production",
        scale.updates_are_waited_for,
        lambda r: _spec(r, "Deployment").update(progressDeadlineSeconds=60),
        "given up after 60 s, and a pod of its may take 420 s",
    ),
    (
        "production",
        scale.the_server_answers_first,
        lambda r: _spec(r, "HTTPRoute")["rules"][0].update(timeouts={"request": "5s"}),
        "ends a request after 5s, and a server may take 30 s",
    ),
    ("production", scale.a_proxy_stays, lambda r: _told(r, "podDisruptionBudget", ": 1", ": 0"), "keeps 0 of 2"),
    ("production", scale.a_proxy_stays, lambda r: _told(r, "podDisruptionBudget", ": 1", ": 2"), "keeps 2 of 2"),
    (
        "production",
        scale.volumes_are_the_servers,
        lambda r: pod_of(the(r, "Deployment", "slipway-serving"))["spec"]["securityContext"].update(fsGroup=0),
        "its volumes are of 0",
    ),
    (
        "production",
        scale.tokens_are_for_the_monitor,
        lambda r: _told(r, "azure.yaml", "monitor.azure.com", "management.azure.com"),
        "asks for tokens of ['https://management.azure.com/.default']",
    ),
]


@pytest.mark.parametrize(("name", "rule", "break_it", "said"), BREAKS)
def test_what_breaks_a_rule_is_seen(name: str, rule: scale.Rule, break_it: Break, said: str) -> None:
    resources = overlay(name)
    break_it(resources)
    (problem,) = rule(resources)
    assert said in problem


def test_every_rule_is_seen_to_fail() -> None:
    assert {rule for _, rule, _, _ in BREAKS} == set(scale.RULES)


def test_routes_that_the_control_plane_makes_wait_as_long_as_those_of_the_manifests() -> None:
    resources = overlay("production")
    told = settings(resources)
    made = float(gateway._REQUEST_TIMEOUT.removesuffix("s"))
    assert made > float(told["SLIPWAY_TIMEOUT_S"]) + float(told["SLIPWAY_DRAIN_S"])
