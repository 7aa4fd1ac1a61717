"""The diagram in the documentation is the table in the code."""

from pathlib import Path

from shared.rollout.machine import state_diagram

DOCUMENT = Path(__file__).parents[3] / "docs" / "rollout-states.md"


def test_the_diagram_in_the_documentation_is_drawn_from_the_table() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert f"```mermaid\n{state_diagram()}\n```" in text, (
        "docs/rollout-states.md is stale: python -c "
        "'from shared.rollout.machine import state_diagram; print(state_diagram())' prints what belongs there"
    )
