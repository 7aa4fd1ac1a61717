"""The documentation's examples are policies, and the settings that it names are those that are read."""

import re
from pathlib import Path

import yaml

from shared.core import metrics_settings
from shared.registry.policy import Policy

DOCS = Path(__file__).parents[3] / "docs"


def test_the_examples_are_policies() -> None:
    for name, queries in (("queries.md", 2), ("policy-dry-run.md", 0)):
        (example,) = re.findall(r"```yaml\n(.*?)```", (DOCS / name).read_text(), re.DOTALL)
        policy = Policy.model_validate(yaml.safe_load(example))
        assert len(policy.rollout.gates.queries) == queries


def test_the_settings_are_named_and_sampled() -> None:
    read = {
        value for name, value in vars(metrics_settings).items() if name.isupper() and str(value).startswith("SLIPWAY_")
    }
    assert len(read) == 4
    assert read == set(re.findall(r"\| `(SLIPWAY_\w+)` \|", (DOCS / "queries.md").read_text()))
    sample = (DOCS.parent / "local.settings.sample.json").read_text()
    assert all(f'"{name}"' in sample for name in read)
