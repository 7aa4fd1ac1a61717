"""A real Prometheus that scrapes what a test says, with the rules that it says, until the test is over."""

import os
import shutil
import subprocess
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

from local.processes import free_port
from tests.support.plain import NO_TLS
from tests.support.waiting import eventually

PROMETHEUS = shutil.which("prometheus")


@dataclass(frozen=True, slots=True, kw_only=True)
class Prometheus:
    """Where it answers."""

    url: str

    def get(self, path: str, **parameters: str) -> Any:
        """What its API gives under `data`."""
        answer = httpx.get(f"{self.url}/api/v1/{path}", params=parameters, timeout=10, verify=NO_TLS)
        found = answer.json()
        assert found["status"] == "success", found
        return found["data"]

    def ask(self, query: str) -> list[dict[str, Any]]:
        """The samples that a query comes to now."""
        found: list[dict[str, Any]] = self.get("query", query=query)["result"]
        return found

    def names(self) -> set[str]:
        """The names of the metrics that it has."""
        return set(self.get("label/__name__/values"))


@contextmanager
def scraping(folder: Path, jobs: Sequence[dict[str, Any]], *, rules: Sequence[Path] = ()) -> Generator[Prometheus]:
    """A Prometheus of these scrape configurations, each target of which it has read once."""
    assert PROMETHEUS is not None
    config = {
        "global": {"scrape_interval": "2s", "scrape_timeout": "2s", "evaluation_interval": "1s"},
        "rule_files": [str(rule) for rule in rules],
        "scrape_configs": list(jobs),
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    port = free_port()
    found = Prometheus(url=f"http://127.0.0.1:{port}")
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [
                PROMETHEUS,
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log,
            stderr=log,
            env={"PATH": os.environ["PATH"]},
        )

    def all_up() -> bool:
        assert process.poll() is None, (folder / "prometheus.log").read_text()
        try:
            if not httpx.get(f"{found.url}/-/ready", timeout=10, verify=NO_TLS).is_success:
                return False
            targets = found.get("targets")["activeTargets"]
        except httpx.TransportError:
            return False
        return len(targets) == len(jobs) and all(target["health"] == "up" for target in targets)

    try:
        eventually(all_up, what="every target to be scraped", deadline_s=60)
        yield found
    finally:
        process.terminate()
        process.wait(timeout=30)
