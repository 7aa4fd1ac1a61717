"""The tables that end the demo."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from local.demo.result import Result, VersionTally
from local.demo.story import Drop


def versions_table(
    drops: Sequence[Drop],
    seen: Mapping[int, VersionTally],
    versions: Sequence[Mapping[str, Any]],
    rollouts: Sequence[Mapping[str, Any]],
) -> Table:
    """A row for each version: what became of it, its accuracy by validation and on live images, and its answers.

    The last column counts those of its answers that it gave in the place of a candidate that had failed.
    """
    table = Table(title="Versions: accuracy by validation and live", title_justify="left")
    for name in ("", "model", "became"):
        table.add_column(name, no_wrap=True)
    for name in ("measured", "live", "answers", "stood in"):
        table.add_column(name, justify="right")
    states = {version["version"]: version["state"] for version in versions}
    states |= {rollout["version"]: rollout["state"] for rollout in rollouts}
    for drop in drops:
        tally = seen.get(drop.version, VersionTally())
        table.add_row(
            str(drop.version),
            drop.entry.value,
            states[drop.version].replace("_", " "),
            _percent(drop.validation["metrics"].get("accuracy")),
            _percent(tally.accuracy),
            str(tally.requests),
            str(tally.stood_in),
        )
    return table


def result_table(result: Result, *, elapsed_s: float, events: int) -> Table:
    """The result's numbers, in words."""
    table = Table(title=f"The demo, {elapsed_s:.0f} s", title_justify="left", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    rows = {
        "drop to registered (median)": _seconds(result.drop_to_registered_s),
        "drop to first answer of the candidate": _seconds(result.drop_to_first_answer_s),
        "first fault to zero traffic of the candidate": _seconds(result.fault_to_zero_traffic_s),
        "requests sent": str(result.requests),
        "requests failed": str(result.failed),
        "users who changed version other than by the ramp": str(result.unsticky),
        "promoted after a canary": str(result.promoted),
        "rejected by validation": str(result.rejected),
        "rolled back by itself": str(result.rolled_back),
        f"audit chain of {events} events": "verified" if result.audit_verified else "BROKEN",
    }
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


def _seconds(value: float | None) -> str:
    return "not seen" if value is None else f"{value:.1f} s"
