"""Azure's managed Prometheus is told to scrape what the functions app serves, with the key where the app looks."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from functions import metrics
from local.host import http

ROOT = Path(__file__).parents[2]
FILE = ROOT / "infra" / "observability" / "scrape" / "control-plane.yaml"
CERTIFICATES = "/etc/prometheus/certs/"
"""Where the add-on mounts the secret ama-metrics-mtls-secret."""


def config() -> dict[str, Any]:
    """What Prometheus is told."""
    given = yaml.safe_load(FILE.read_text())
    assert (given["kind"], given["metadata"]["name"]) == ("ConfigMap", "ama-metrics-prometheus-config")
    assert given["metadata"]["namespace"] == "kube-system"
    found: dict[str, Any] = yaml.safe_load(given["data"]["prometheus-config"])
    return found


def test_it_asks_the_route_of_the_metrics_by_tls() -> None:
    (job,) = config()["scrape_configs"]
    prefix = yaml.safe_load((ROOT / "host.json").read_text())["extensions"]["http"]["routePrefix"]
    routes = re.findall(r'@bp\.route\("([^"]+)"', Path(metrics.__file__).read_text())
    assert job["metrics_path"] in {f"/{prefix}/{route}" for route in routes}
    assert job["scheme"] == "https"
    assert int(job["scrape_timeout"].removesuffix("s")) < int(job["scrape_interval"].removesuffix("s"))


def test_the_key_is_a_file_in_the_header_that_the_app_reads() -> None:
    (job,) = config()["scrape_configs"]
    assert job["http_headers"] == {"x-functions-key": {"files": [f"{CERTIFICATES}slipway-metrics-key"]}}
    assert '"x-functions-key"' in Path(http.__file__).read_text()
    assert "params" not in job


def test_the_guide_makes_the_file_that_is_read() -> None:
    (job,) = config()["scrape_configs"]
    (path,) = job["http_headers"]["x-functions-key"]["files"]
    guide = (ROOT / "docs" / "deployment.md").read_text()
    step = guide.partition("## 9. The control plane's metrics")[2].partition("\n## ")[0]
    made = re.search(rf"--from-file={re.escape(path.removeprefix(CERTIFICATES))}=(\S+)", step)
    assert made
    assert f"> {made[1]}\n" in step.partition("kubectl")[0]
    assert "secret generic ama-metrics-mtls-secret" in step
    (target,) = job["static_configs"][0]["targets"]
    assert f"s/{target}/" in step


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_prometheus_takes_it(tmp_path: Path) -> None:
    found = config()
    for job in found["scrape_configs"]:
        # Prometheus has it since 2.55, and Debian an older one.
        job.pop("http_headers")
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(found))
    command = ["promtool", "check", "config", str(tmp_path / "prometheus.yml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
