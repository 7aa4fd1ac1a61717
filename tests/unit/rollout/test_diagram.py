"""The diagram and the table of commands in the documentation are the tables in the code."""

from pathlib import Path

from shared.rollout.machine import RolloutState, command_table, state_diagram

DOCUMENT = Path(__file__).parents[3] / "docs" / "rollout-states.md"


def test_the_diagram_in_the_documentation_is_drawn_from_the_table() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert f"```mermaid\n{state_diagram()}\n```" in text, (
        "docs/rollout-states.md is stale: python -c "
        "'from shared.rollout.machine import state_diagram; print(state_diagram())' prints what belongs there"
    )


def test_the_commands_in_the_documentation_are_those_of_the_table() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert f"\n{command_table()}\n" in text, (
        "docs/rollout-states.md is stale: python -c "
        "'from shared.rollout.machine import command_table; print(command_table())' prints what belongs there"
    )


def test_every_state_is_told_of_in_the_documentation() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert [state for state in RolloutState if f"\n| `{state}` | " not in text] == []
