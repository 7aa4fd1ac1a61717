"""AKS's deployment safeguards and the Pod Security standard `restricted`, as rules (tests.infra.k8s_rules).

As Microsoft and Kubernetes publish them. The cluster enforces them too, but says so only when it is too late for a
review.
"""

from collections.abc import Iterator

from tests.infra.k8s import Resource, containers, of_kind, pod_of, quantity, selected, selects, title

MIN_CPU, MIN_MEMORY = quantity("100m"), quantity("100Mi")


def resources_are_asked_for(resources: list[Resource]) -> Iterator[str]:
    """Safeguard: requests and limits, not under 100m and 100Mi; memory is not overcommitted for the server."""
    for where, container in containers(resources):
        asked, most = (container.get("resources", {}).get(part, {}) for part in ("requests", "limits"))
        for name, least in (("cpu", MIN_CPU), ("memory", MIN_MEMORY)):
            if name not in asked or name not in most:
                yield f"{where} has no request or no limit of {name}"
            elif quantity(asked[name]) < least:
                yield f"{where} requests {asked[name]} of {name}, less than the safeguards' least"
            elif quantity(asked[name]) > quantity(most[name]):
                yield f"{where} requests more {name} than its limit"
        if container["name"] == "serving" and asked.get("memory") != most.get("memory"):
            yield f"{where} may take more memory than it requests: its node may run out of it"


def probes_are_there(resources: list[Resource]) -> Iterator[str]:
    """Safeguard: readiness and liveness probes. Ours: a startup probe, and ports that the container has."""
    for where, container in containers(resources):
        names = {port["name"] for port in container["ports"]}
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            found = container.get(probe)
            if found is None:
                yield f"{where} has no {probe}"
            elif found["httpGet"]["port"] not in names:
                yield f"{where} has a {probe} of the port {found['httpGet']['port']!r}, which it does not have"


def images_are_pinned(resources: list[Resource]) -> Iterator[str]:
    """Safeguard: no `latest`. Ours: a digest, and a registry of our own."""
    for where, container in containers(resources):
        image = container["image"]
        name, at, digest = image.partition("@")
        if not at or not digest.startswith("sha256:") or len(digest) != len("sha256:") + 64:
            yield f"{where} has the image {image!r}, which no digest pins"
        elif not name.split("/")[0].endswith(".azurecr.io"):
            yield f"{where} has the image {image!r}, which is not of our registry"


def pods_are_spread(resources: list[Resource]) -> Iterator[str]:
    """Safeguard: anti-affinity or spread where there are two. Ours: over zones and over nodes."""
    for found in of_kind(resources, "Deployment"):
        pod = pod_of(found)
        spread = {c["topologyKey"]: c for c in pod["spec"].get("topologySpreadConstraints", [])}
        for key in ("topology.kubernetes.io/zone", "kubernetes.io/hostname"):
            if key not in spread:
                yield f"{title(found)} is not spread over {key}"
            elif not selects(spread[key]["labelSelector"], pod["metadata"]["labels"]):
                yield f"{title(found)} is spread among pods that it is not of"
        zones = spread.get("topology.kubernetes.io/zone", {})
        if zones.get("whenUnsatisfiable") == "DoNotSchedule":
            yield f"{title(found)} may wait for a node of a zone, which an autoscaled pool cannot be asked for"


def selectors_are_unique(resources: list[Resource]) -> Iterator[str]:
    """Safeguard: no two Services with one selector. Ours: each selects the pods of exactly one Deployment."""
    seen: dict[tuple[object, ...], str] = {}
    for service in of_kind(resources, "Service"):
        selector = service["spec"]["selector"]
        key = (service["metadata"]["namespace"], *sorted(selector.items()))
        if key in seen:
            yield f"{title(service)} has the selector of {seen[key]}"
        seen[key] = title(service)
        meant = selected(resources, service["metadata"]["namespace"], {"matchLabels": selector})
        if len(meant) != 1:
            yield f"{title(service)} selects the pods of {len(meant)} Deployments"
            continue
        names = {p["name"] for c in pod_of(meant[0])["spec"]["containers"] for p in c["ports"]}
        for port in service["spec"]["ports"]:
            if port["targetPort"] not in names:
                yield f"{title(service)} leads to the port {port['targetPort']!r}, which its pods do not have"


def labels_are_ours(resources: list[Resource]) -> Iterator[str]:
    """Safeguard: no labels of AKS's own group."""
    for resource in resources:
        labels = dict(resource["metadata"].get("labels", {}))
        if resource["kind"] == "Deployment":
            labels |= pod_of(resource)["metadata"]["labels"]
        for name in labels:
            if name.split("/")[0].endswith("kubernetes.azure.com"):
                yield f"{title(resource)} has the label {name}, which is reserved for AKS"


def pods_are_restricted(resources: list[Resource]) -> Iterator[str]:
    """Pod Security `restricted`; and no token of Kubernetes', a high user id, volumes with an end."""
    for found in of_kind(resources, "Deployment"):
        pod = pod_of(found)["spec"]
        context = pod.get("securityContext", {})
        if context.get("runAsNonRoot") is not True or context.get("runAsUser", 0) < 10_000:
            yield f"{title(found)} may run as root, or as a user of the node"
        if context.get("seccompProfile", {}).get("type") != "RuntimeDefault":
            yield f"{title(found)} has no seccomp profile"
        if pod.get("automountServiceAccountToken") is not False:
            yield f"{title(found)} gets a token of Kubernetes', which it does not need"
        if any(pod.get(name) for name in ("hostNetwork", "hostPID", "hostIPC")):
            yield f"{title(found)} shares namespaces of its node"
        for volume in pod.get("volumes", []):
            if not volume.keys() & {"emptyDir", "configMap", "projected", "csi", "ephemeral", "downwardAPI"}:
                yield f"{title(found)} has the volume {volume['name']!r} of a kind that is not allowed"
            elif "emptyDir" in volume and "sizeLimit" not in volume["emptyDir"]:
                yield f"{title(found)} has the volume {volume['name']!r} without a limit"


def containers_are_restricted(resources: list[Resource]) -> Iterator[str]:
    """Pod Security `restricted`; and a root filesystem that is read-only."""
    for where, container in containers(resources):
        context = container.get("securityContext", {})
        if context.get("allowPrivilegeEscalation") is not False:
            yield f"{where} may gain privileges"
        if context.get("capabilities", {}).get("drop") != ["ALL"] or context.get("capabilities", {}).get("add"):
            yield f"{where} has capabilities"
        if context.get("readOnlyRootFilesystem") is not True:
            yield f"{where} may write to its root filesystem"
        if any("hostPort" in port for port in container["ports"]):
            yield f"{where} has a port of its node"


def namespaces_enforce(resources: list[Resource]) -> Iterator[str]:
    """Every namespace that something is in is one of ours and says what its pods may be."""
    levels = {"slipway": "restricted", "slipway-gateway": "baseline"}
    ours = {r["metadata"]["name"]: r["metadata"].get("labels", {}) for r in of_kind(resources, "Namespace")}
    for name, level in levels.items():
        found = ours.get(name, {}).get("pod-security.kubernetes.io/enforce")
        if found != level:
            yield f"the namespace {name} enforces {found}, not {level}"
    for resource in resources:
        inside = resource["metadata"].get("namespace")
        if resource["kind"] != "Namespace" and inside not in ours:
            yield f"{title(resource)} is in no namespace of ours"
