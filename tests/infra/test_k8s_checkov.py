"""checkov finds nothing in what the overlays make, and would."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.serving.environments import EnvironmentMissingError
from tests.infra.checkov import report_of
from tests.infra.k8s import OVERLAYS, Resource, overlay, pod_of, the


def _broken() -> list[Resource]:
    """The server as it should not be: it may write to its image, has all its capabilities, and no limit of memory."""
    resources = overlay("production")
    (container,) = pod_of(the(resources, "Deployment", "slipway-serving"))["spec"]["containers"]
    container["securityContext"] = {}
    container["resources"]["limits"].pop("memory")
    container["image"] = "slipway-serving:latest"
    return resources


@pytest.mark.long
def test_checkov_finds_nothing_but_what_is_broken_on_purpose(tmp_path: Path) -> None:
    for name, resources in ({name: overlay(name) for name in OVERLAYS} | {"broken": _broken()}).items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump_all(resources), "utf-8")

    try:
        report = report_of("--directory", str(tmp_path), "--framework", "kubernetes")
    except EnvironmentMissingError as error:
        pytest.skip(f"checkov cannot be had: {error}")

    found: dict[str, Any] = report["results"]
    failed = {(Path(check["file_path"]).stem, check["check_id"]) for check in found["failed_checks"]}
    assert report["summary"]["parsing_errors"] == 0
    assert report["summary"]["passed"] > 400, "it looked at the pods of all overlays"
    assert {check for name, check in failed if name != "broken"} == set()
    assert {check for name, check in failed if name == "broken"} >= {
        "CKV_K8S_13",  # no limit of memory
        "CKV_K8S_14",  # latest
        "CKV_K8S_20",  # may gain privileges
        "CKV_K8S_22",  # a root filesystem that is written to
        "CKV_K8S_28",  # capabilities
        "CKV_K8S_43",  # no digest
    }
