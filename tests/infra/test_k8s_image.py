"""The manifests and the image agree on who runs, where it writes and what listens."""

import re

from tests.infra.k8s import ROOT, overlay, pod_of, settings, the


def test_the_pod_runs_the_image_as_it_was_made() -> None:
    image = (ROOT / "aks-serving" / "Dockerfile").read_text("utf-8")
    resources = overlay("production")
    pod = pod_of(the(resources, "Deployment", "slipway-serving"))["spec"]
    (container,) = pod["containers"]
    user = f"{pod['securityContext']['runAsUser']}:{pod['securityContext']['runAsGroup']}"
    ports = " ".join(str(port["containerPort"]) for port in container["ports"])
    cache = settings(resources)["SLIPWAY_CACHE_DIR"]

    assert re.findall(r"(?m)^USER (.+)$", image) == [user]
    assert re.findall(r"(?m)^EXPOSE (.+)$", image) == [ports]
    assert f"SLIPWAY_CACHE_DIR={cache}" in image
    assert re.search(rf"install --directory --owner=\d+ --group=\d+ --mode=0700 {cache}\b", image)
    assert "command" not in container, "the image's own entry point is started"
    assert "args" not in container


def test_the_image_has_what_the_settings_ask_for() -> None:
    lock = (ROOT / "aks-serving" / "requirements.txt").read_text("utf-8")
    found = settings(overlay("production"))

    assert "SLIPWAY_GRPC_PORT" in found
    assert re.search(r"(?m)^grpcio==", lock), "SLIPWAY_GRPC_PORT needs the extra `grpc`"
    assert "OTEL_EXPORTER_OTLP_ENDPOINT" in found
    assert re.search(r"(?m)^opentelemetry-exporter-otlp-proto-http==", lock), "spans need the extra `tracing`"
