"""What stands in infra/observability, as promtool sees it: alerts in their own tests, and what dashboards ask."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.unit.observing.exposed import OBSERVABILITY, expressions, rule_files

DASHBOARDS = sorted((OBSERVABILITY / "dashboards").glob("*.json"))
needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")


@needs_promtool
@pytest.mark.parametrize("file", rule_files(), ids=lambda file: file.stem)
def test_the_alerts_fire_when_they_should_and_only_then(file: Path) -> None:
    tests = file.with_name(f"{file.stem}.test.yaml")
    for arguments in (("check", "rules", file.name), ("test", "rules", tests.name)):
        done = subprocess.run(["promtool", *arguments], cwd=file.parent, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_what_dashboards_ask_is_good_promql(tmp_path: Path) -> None:
    stood_in = {"$__rate_interval": "5m"}
    records = [
        {"record": f"asked:{path.stem.replace('-', '_')}:{number}", "expr": expression}
        for path in DASHBOARDS
        for number, expression in enumerate(expressions(json.loads(path.read_text())))
        if not expression.startswith("label_values")
    ]
    for record in records:
        record["expr"] = re.sub(r"\$\w+", lambda found: stood_in.get(found[0], "x"), record["expr"])
    file = tmp_path / "asked.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "asked", "rules": records}]}))
    done = subprocess.run(["promtool", "check", "rules", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
