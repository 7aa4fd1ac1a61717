"""Rules that the manifests keep. Each takes all resources of an overlay and answers what is wrong, a sentence each."""

from collections.abc import Callable, Iterator

from aks_serving import __main__ as server
from aks_serving.supervisor import FINISH_S

from tests.infra import k8s_safeguards as safeguards
from tests.infra.k8s import (
    Resource,
    containers,
    of_kind,
    pod_of,
    quantity,
    selected,
    selects,
    servers,
    serving,
    settings,
    title,
)

type Rule = Callable[[list[Resource]], Iterator[str]]

PROPAGATION_S = 5.0
"""How long gateways may take to hear that a pod goes."""
LATENESS_S = 10.0


def updates_lose_nothing(resources: list[Resource]) -> Iterator[str]:
    """Updates go with maxSurge 1 and maxUnavailable 0, and replicas that the autoscaler alone says."""
    for found in of_kind(resources, "Deployment"):
        rolling = found["spec"].get("strategy", {}).get("rollingUpdate", {})
        if rolling != {"maxSurge": 1, "maxUnavailable": 0}:
            yield f"{title(found)} is updated with {rolling}"
    for found in servers(resources):
        if "replicas" in found["spec"]:
            yield f"{title(found)} says how many pods there are: applying it undoes what the autoscaler did"


def one_scaler(resources: list[Resource]) -> Iterator[str]:
    """For each Deployment of servers an autoscaler or a ScaledObject, never both; 2 to at most 20; 70 % and 80 %."""
    scalers = of_kind(resources, "HorizontalPodAutoscaler", "ScaledObject")
    for deployment in servers(resources):
        mine = [s for s in scalers if s["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]]
        if len(mine) != 1:
            yield f"{len(mine)} resources say how many pods {title(deployment)} has: {[title(s) for s in mine]}"
    for scaler in scalers:
        spec = scaler["spec"]
        of = spec["scaleTargetRef"]
        if not any(r["metadata"]["name"] == of["name"] for r in of_kind(resources, of["kind"])):
            yield f"{title(scaler)} scales {of['kind']} {of['name']}, which there is not"
        if scaler["kind"] == "ScaledObject":
            least, most = spec["minReplicaCount"], spec["maxReplicaCount"]
            used = {t["type"]: int(t["metadata"]["value"]) for t in spec["triggers"] if t["type"] in {"cpu", "memory"}}
        else:
            least, most = spec["minReplicas"], spec["maxReplicas"]
            used = {m["resource"]["name"]: m["resource"]["target"]["averageUtilization"] for m in spec["metrics"]}
        if least < 2 or not least < most <= 20:
            yield f"{title(scaler)} keeps {least} to {most} pods"
        if used != {"cpu": 70, "memory": 80}:
            yield f"{title(scaler)} aims at {used}"


def disruptions_are_bounded(resources: list[Resource]) -> Iterator[str]:
    """Each Deployment has a budget, of its own pods, that lets nodes be drained and not more than one pod at a time."""
    for found in of_kind(resources, "Deployment"):
        labels, inside = pod_of(found)["metadata"]["labels"], found["metadata"]["namespace"]
        budgets = [
            b
            for b in of_kind(resources, "PodDisruptionBudget")
            if b["metadata"]["namespace"] == inside and selects(b["spec"]["selector"], labels)
        ]
        if len(budgets) != 1:
            yield f"{title(found)} has {len(budgets)} disruption budgets"
        for budget in budgets:
            if budget["spec"].get("maxUnavailable") != 1:
                yield f"{title(budget)} does not allow exactly one pod to go"


def draining_has_time(resources: list[Resource]) -> Iterator[str]:
    """A pod has time to be forgotten by gateways, to drain and to finish; a server that mends itself is let."""
    for deployment in servers(resources):
        found, container = settings(resources, deployment["metadata"]["name"]), serving(deployment)
        pause_s = float(container["lifecycle"]["preStop"]["sleep"]["seconds"])
        drain_s, timeout_s = float(found.get("SLIPWAY_DRAIN_S", 0.5)), float(found.get("SLIPWAY_TIMEOUT_S", 30))
        ready = container["readinessProbe"]
        unready_s = ready["periodSeconds"] * ready["failureThreshold"] + ready["timeoutSeconds"]
        if pause_s < PROPAGATION_S:
            yield f"the server is told to stop {pause_s:g} s after its pod is: gateways may not have heard of it"
        if drain_s < unready_s:
            yield f"it drains for {drain_s:g} s, and a probe may take {unready_s:g} s to see that it is not ready"
        if timeout_s > FINISH_S:
            yield f"a request may take {timeout_s:g} s, and what is in flight is given {FINISH_S:g} s"
        needed_s = pause_s + drain_s + max(timeout_s, FINISH_S) + server._END_S + LATENESS_S
        grace_s = pod_of(deployment)["spec"]["terminationGracePeriodSeconds"]
        if grace_s < needed_s:
            yield f"the pod is killed after {grace_s} s, and may need {needed_s:g} s"
        hang_s = float(found.get("SLIPWAY_HANG_S", 30))
        alive = container["livenessProbe"]
        if alive["periodSeconds"] * (alive["failureThreshold"] - 1) < hang_s * 1.5 + 1 + LATENESS_S:
            yield "the liveness probe kills the server before its parent has replaced a worker that hangs"


def workers_have_cores(resources: list[Resource]) -> Iterator[str]:
    """As many workers as cores: more would wait for each other, fewer leave what is paid for idle."""
    for deployment in servers(resources):
        cores = quantity(serving(deployment)["resources"]["limits"]["cpu"])
        workers = settings(resources, deployment["metadata"]["name"]).get("SLIPWAY_WORKERS")
        if workers != f"{cores:g}":
            yield f"{title(deployment)} may use {cores:g} cores, and SLIPWAY_WORKERS is {workers}"


def disk_is_enough(resources: list[Resource]) -> Iterator[str]:
    """What is written goes to volumes that are mounted, of the pod alone, and the pod's limit covers them.

    The cache holds twice what memory does: stable's files and those of a candidate, which lie there before memory
    refuses any.
    """
    for deployment in servers(resources):
        cache = settings(resources, deployment["metadata"]["name"])["SLIPWAY_CACHE_DIR"]
        container, volumes = serving(deployment), {v["name"]: v for v in pod_of(deployment)["spec"]["volumes"]}
        mounted = {m["mountPath"]: volumes[m["name"]] for m in container["volumeMounts"] if not m.get("readOnly")}
        if mounted.keys() != {cache, "/tmp"}:  # noqa: S108 - the container's own
            yield f"the server writes to {cache} and /tmp, and may write to {sorted(mounted)}"
        size = sum(quantity(v["emptyDir"]["sizeLimit"]) for v in mounted.values())
        if quantity(container["resources"]["limits"]["ephemeral-storage"]) < size:
            yield "the volumes may hold more than the pod's ephemeral storage: it is evicted before they are full"
        kept, memory = mounted.get(cache, {}), quantity(container["resources"]["limits"]["memory"])
        if kept and quantity(kept["emptyDir"]["sizeLimit"]) < 2 * memory:
            yield f"{title(deployment)} has less disk than files of twice its memory take: a candidate has it evicted"


def settings_are_only_ours(resources: list[Resource]) -> Iterator[str]:
    """No variables of Services: of one that is called `slipway`, SLIPWAY_PORT would be `tcp://...`."""
    for found in of_kind(resources, "Deployment"):
        if pod_of(found)["spec"].get("enableServiceLinks") is not False:
            yield f"{title(found)} gets variables of the Services in its namespace, which may be named as settings"


def references_hold(resources: list[Resource]) -> Iterator[str]:
    """What one resource says of another is there: accounts, configuration, monitored ports, backends, listeners."""
    names = {(r["kind"], r["metadata"].get("namespace"), r["metadata"]["name"]) for r in resources}
    for found in of_kind(resources, "Deployment"):
        inside, pod = found["metadata"]["namespace"], pod_of(found)["spec"]
        wanted = [("ServiceAccount", pod.get("serviceAccountName"))]
        wanted += [("ConfigMap", v["configMap"]["name"]) for v in pod.get("volumes", []) if "configMap" in v]
        wanted += [("ConfigMap", e["configMapRef"]["name"]) for c in pod["containers"] for e in c.get("envFrom", [])]
        yield from (
            f"{title(found)} names the {kind} {name}, which there is not"
            for kind, name in wanted
            if (kind, inside, name) not in names
        )
    for monitor in of_kind(resources, "PodMonitor"):
        meant = selected(resources, monitor["metadata"]["namespace"], monitor["spec"]["selector"])
        ports = {p["name"] for d in meant for c in pod_of(d)["spec"]["containers"] for p in c["ports"]}
        for endpoint in monitor["spec"]["podMetricsEndpoints"]:
            if endpoint["port"] not in ports:
                yield f"{title(monitor)} asks the port {endpoint['port']!r}, which no pod of its has"
    yield from _routes_hold(resources)


def _routes_hold(resources: list[Resource]) -> Iterator[str]:
    listeners = {
        (g["metadata"]["namespace"], g["metadata"]["name"], listener["name"]): listener
        for g in of_kind(resources, "Gateway")
        for listener in g["spec"]["listeners"]
    }
    ports = {
        (s["metadata"]["namespace"], s["metadata"]["name"], p["port"])
        for s in of_kind(resources, "Service")
        for p in s["spec"]["ports"]
    }
    for route in of_kind(resources, "HTTPRoute", "GRPCRoute"):
        inside, spec = route["metadata"]["namespace"], route["spec"]
        for parent in spec["parentRefs"]:
            listener = listeners.get((parent["namespace"], parent["name"], parent["sectionName"]))
            if listener is None:
                yield f"{title(route)} is of the listener {parent}, which there is not"
                continue
            if route["kind"] not in {k["kind"] for k in listener["allowedRoutes"]["kinds"]}:
                yield f"{title(route)} is of a kind that the listener {listener['name']} does not take"
            if not selects(
                listener["allowedRoutes"]["namespaces"]["selector"], {"kubernetes.io/metadata.name": inside}
            ):
                yield f"{title(route)} is in a namespace that the listener {listener['name']} does not take"
            if spec.get("hostnames"):
                yield f"{title(route)} names hosts: it goes before those that name none, whatever their paths say"
        for backend in (b for rule in spec["rules"] for b in rule["backendRefs"]):
            if (inside, backend["name"], backend["port"]) not in ports:
                yield f"{title(route)} leads to {backend['name']}:{backend['port']}, which there is not"


def tls_ends_at_the_gateway(resources: list[Resource]) -> Iterator[str]:
    """Every listener has TLS, with a certificate of Key Vault that an account of the Gateway's namespace may read."""
    for gateway in of_kind(resources, "Gateway"):
        inside = gateway["metadata"]["namespace"]
        accounts = {a["metadata"]["name"]: a for a in of_kind(resources, "ServiceAccount")}
        for listener in gateway["spec"]["listeners"]:
            where = f"{title(gateway)}, listener {listener['name']}"
            options = listener.get("tls", {}).get("options", {})
            certificate = options.get("kubernetes.azure.com/tls-cert-keyvault-uri", "")
            if listener["protocol"] != "HTTPS" or listener["tls"]["mode"] != "Terminate":
                yield f"{where} speaks without TLS of its own"
            if not certificate.startswith("https://") or len(certificate.split("/")) != 5:
                yield f"{where} has the certificate {certificate!r}: name it without a version, so that it is renewed"
            account = accounts.get(options.get("kubernetes.azure.com/tls-cert-service-account", ""))
            if account is None or account["metadata"]["namespace"] != inside:
                yield f"{where} reads its certificate as an account that its namespace does not have"
            elif not _has_identity(account) or _USE not in account["metadata"].get("labels", {}):
                yield f"{where} reads its certificate as an account without an identity"


def identities_are_given(resources: list[Resource]) -> Iterator[str]:
    """Pods that speak to Azure have an identity: the account names it, the pod asks for it. No pod has a secret."""
    accounts = {(a["metadata"]["namespace"], a["metadata"]["name"]): a for a in of_kind(resources, "ServiceAccount")}
    for found in of_kind(resources, "Deployment"):
        pod = pod_of(found)
        account = accounts.get((found["metadata"]["namespace"], pod["spec"].get("serviceAccountName")))
        if account is None or not _has_identity(account):
            yield f"{title(found)} has no identity of Azure's"
        if pod["metadata"]["labels"].get(_USE) != "true":
            yield f"{title(found)} does not ask for its identity"
    for resource in of_kind(resources, "Secret"):
        yield f"{title(resource)}: nothing of ours is a secret"
    told = {name for deployment in servers(resources) for name in settings(resources, deployment["metadata"]["name"])}
    for where, container in containers(resources):
        for name in ("SLIPWAY_STORAGE_CONNECTION", "AZURE_CLIENT_SECRET", "APPLICATIONINSIGHTS_CONNECTION_STRING"):
            if any(entry["name"] == name for entry in container.get("env", [])) or name in told:
                yield f"{where} has {name}: identities alone"


def only_predictions_are_public(resources: list[Resource]) -> Iterator[str]:
    """The routes lead to predictions and what describes them; metrics, statistics and reloading stay inside."""
    inside = ("/metrics", "/ab-test/stats", "/models/reload", "/health", "/ready")
    for route in of_kind(resources, "HTTPRoute"):
        for match in (m for rule in route["spec"]["rules"] for m in rule.get("matches", [{}])):
            path = match.get("path", {"type": "PathPrefix", "value": "/"})
            for hidden in inside:
                prefix = path["value"].rstrip("/")
                if path["value"] == hidden or (
                    path["type"] == "PathPrefix" and (hidden == prefix or hidden.startswith(prefix + "/"))
                ):
                    yield f"{title(route)} leads callers to {hidden}"


RULES: tuple[Rule, ...] = (
    safeguards.resources_are_asked_for,
    safeguards.probes_are_there,
    safeguards.images_are_pinned,
    safeguards.pods_are_spread,
    safeguards.selectors_are_unique,
    safeguards.labels_are_ours,
    safeguards.pods_are_restricted,
    safeguards.containers_are_restricted,
    safeguards.namespaces_enforce,
    updates_lose_nothing,
    one_scaler,
    disruptions_are_bounded,
    draining_has_time,
    workers_have_cores,
    disk_is_enough,
    settings_are_only_ours,
    references_hold,
    tls_ends_at_the_gateway,
    identities_are_given,
    only_predictions_are_public,
)

_CLIENT, _USE = "azure.workload.identity/client-id", "azure.workload.identity/use"


def _has_identity(account: Resource) -> bool:
    return len(account["metadata"].get("annotations", {}).get(_CLIENT, "")) == len(
        "00000000-0000-0000-0000-000000000000"
    )
