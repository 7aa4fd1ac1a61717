"""An overlay's environment.yaml is filled with what a deployment put out."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.infra.bicep import Template
from tests.infra.k8s import MANIFESTS, ROOT, build, of_kind, settings, the

BY_HAND = {"HOST", "GRPC_HOST"}
OUTPUTS = {
    "BLOB_URL": "https://stslipwayabc.blob.core.windows.net",
    "PRIVATE_ENDPOINTS_CIDR": "10.30.1.0/24",
    "SERVING_CLIENT_ID": "11111111-1111-1111-1111-111111111111",
    "GATEWAY_CLIENT_ID": "22222222-2222-2222-2222-222222222222",
    "COLLECTOR_CLIENT_ID": "33333333-3333-3333-3333-333333333333",
    "SCALER_CLIENT_ID": "44444444-4444-4444-4444-444444444444",
    "PROMETHEUS_URL": "https://amw-abcd.westeurope.prometheus.monitor.azure.com",
    "TRACES_URL": "https://dce-abc.westeurope-1.ingest.monitor.azure.com/datacollectionRules/dcr-0/streams/Microsoft-OTLP-Traces/otlp/v1/traces",
    "VAULT_NAME": "kv-slipway-abc",
}


def _said(outputs: dict[str, str]) -> str:
    """As the Azure CLI prints outputs."""
    return json.dumps({name: {"type": "String", "value": value} for name, value in outputs.items()})


@pytest.fixture
def manifests(tmp_path: Path) -> Path:
    """A copy, to be changed."""
    shutil.copytree(MANIFESTS.parent / "gitops", tmp_path / "gitops")
    return Path(shutil.copytree(MANIFESTS, tmp_path / "k8s"))


def _fill(manifests: Path, name: str, said: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(manifests / "environment.py"), name]
    return subprocess.run(command, input=said, capture_output=True, text=True, timeout=60, check=False)


def test_what_is_put_out_comes_to_stand_where_it_is_needed(manifests: Path) -> None:
    run = _fill(manifests, "production", _said(OUTPUTS | {"RESOURCE_GROUP": "rg-slipway-production"}))

    assert run.returncode == 0, run.stderr
    overlay, gitops = (line.rpartition(": ")[2] for line in run.stdout.splitlines())
    assert (set(overlay.split(", ")), gitops) == (BY_HAND, "nothing")
    made = build(manifests / "overlays" / "production-keda")
    accounts = {a["metadata"]["name"]: a["metadata"]["annotations"] for a in of_kind(made, "ServiceAccount")}
    assert settings(made)["SLIPWAY_BLOB_URL"] == OUTPUTS["BLOB_URL"]
    assert {name: ids["azure.workload.identity/client-id"] for name, ids in accounts.items()} == {
        "slipway-serving": OUTPUTS["SERVING_CLIENT_ID"],
        "slipway-gateway": OUTPUTS["GATEWAY_CLIENT_ID"],
        "slipway-otel-collector": OUTPUTS["COLLECTOR_CLIENT_ID"],
    }
    scaled, asked = (
        the(made, "ScaledObject", "slipway-serving"),
        the(made, "TriggerAuthentication", "slipway-prometheus"),
    )
    assert scaled["spec"]["triggers"][0]["metadata"]["serverAddress"] == OUTPUTS["PROMETHEUS_URL"]
    assert asked["spec"]["podIdentity"]["identityId"] == OUTPUTS["SCALER_CLIENT_ID"]
    assert the(made, "NetworkPolicy", "serving-to-storage")["spec"]["egress"][0]["to"] == [
        {"ipBlock": {"cidr": OUTPUTS["PRIVATE_ENDPOINTS_CIDR"]}}
    ]
    listeners = the(made, "Gateway", "slipway")["spec"]["listeners"]
    bucket = the(build(manifests.parent / "gitops" / "production"), "Bucket", "slipway-routes")
    assert bucket["spec"]["endpoint"] == OUTPUTS["BLOB_URL"]
    assert {listener["tls"]["options"]["kubernetes.azure.com/tls-cert-keyvault-uri"] for listener in listeners} == {
        "https://kv-slipway-abc.vault.azure.net/certificates/slipway"
    }


def test_nothing_else_of_the_files_is_changed(manifests: Path) -> None:
    files = [manifests / "overlays/staging/environment.yaml", manifests.parent / "gitops/staging/environment.yaml"]
    before = [file.read_text("utf-8").splitlines() for file in files]

    _fill(manifests, "staging", _said({"BLOB_URL": OUTPUTS["BLOB_URL"]}))

    for file, lines in zip(files, before, strict=True):
        after = file.read_text("utf-8").splitlines()
        changed = [(old, new) for old, new in zip(lines, after, strict=True) if old != new]
        assert [new for _, new in changed] == [f"  BLOB_URL: {OUTPUTS['BLOB_URL']}"]


@pytest.mark.parametrize(
    ("name", "said", "told"),
    [
        ("prod", "{}", "name one of dev, production, staging"),
        ("staging", "[]", "use --query properties.outputs"),
        ("staging", '{"BLOB_URL": "https://a"}', "use --query properties.outputs"),
        ("staging", _said({"BLOB_URL": "x\n  HOST: evil"}), "the output BLOB_URL is"),
        ("staging", "", "error: "),
    ],
)
def test_what_is_no_output_changes_nothing(manifests: Path, name: str, said: str, told: str) -> None:
    file = manifests / "overlays" / "staging" / "environment.yaml"
    before = file.read_text("utf-8")

    run = _fill(manifests, name, said)

    assert (run.returncode, told in run.stderr) == (2, True), run.stderr
    assert file.read_text("utf-8") == before


def test_each_key_is_an_output_of_the_templates_or_set_by_hand() -> None:
    outputs = Template.read(ROOT / "infra" / "bicep" / "main.bicep").outputs
    wanted = set(OUTPUTS)

    assert wanted <= set(outputs), f"not put out: {sorted(wanted - set(outputs))}"
    for name in ("dev", "staging", "production"):
        lines = (MANIFESTS / "overlays" / name / "environment.yaml").read_text("utf-8").split("\ndata:\n")[1]
        keys = {line.split(":")[0].strip() for line in lines.splitlines()}
        assert keys == (wanted - {"VAULT_NAME"}) | {"CERTIFICATE_URI"} | BY_HAND
