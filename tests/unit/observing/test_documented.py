"""The metrics that documents name: those of the model server's table by what /metrics gives, and all others too."""

import re
from pathlib import Path

from aks_serving.taking import Fate

from shared.routing.plan import Role
from tests.unit.observing.emitted import server_families, stored
from tests.unit.observing.exposed import control_plane

_PAGE = (Path(__file__).parents[3] / "docs" / "observability.md").read_text()
_LINES = _PAGE.split("### Of a model server", 1)[1].split("\n### ", 1)[0].splitlines()


def _values(label: str) -> set[str]:
    rows = [line.split(" | ") for line in _LINES if line.startswith(f"| {label} | ")]
    return {row[1].strip("`") for row in rows}


def test_each_metric_of_the_model_server_has_its_line_and_no_other_has() -> None:
    expected = []
    for family in server_families():
        labels = dict.fromkeys(label for _, found, _ in family.samples for label, _ in found if label != "le")
        expected.append(f"| `{stored(family)}` | {family.kind} | {', '.join(labels)} | {family.help} |")
    assert [line for line in _LINES if line.startswith(("| `model_", "| `http_"))] == expected


def test_each_value_of_a_label_has_its_line_and_no_other_has() -> None:
    told = {
        family.name: {value for _, found, _ in family.samples for label, value in found if label == "outcome"}
        for family in server_families()
    }
    assert _values("`outcome` of predictions") == told["model_prediction_requests"]
    assert _values("`outcome` of copies") == told["model_shadow_requests"]
    assert _values("`outcome` of feature rows") == set(Fate)
    assert _values("`variant`") == set(Role)


def test_each_metric_that_a_document_names_is_one() -> None:
    root = Path(__file__).parents[3]
    told = {
        (path.name, name)
        for path in (*root.glob("docs/**/*.md"), *root.glob("infra/**/*.md"), *root.glob("*/README.md"))
        for name in re.findall(
            r"\b(?:slipway|http_server)_[a-z_]+|\bmodel_[a-z_]+_(?:total|seconds|ratio)\b", path.read_text()
        )
    }
    there = control_plane() | {stored(family) for family in server_families()}
    assert len(told) > 30
    assert {one for one in told if one[1] not in there} == set()
