"""How alerts and silences look to a person."""

import json

from cli import shown
from cli.outcome import Json


def alerts(found: list[Json]) -> None:
    """A list of alerts."""
    if not found:
        print("There are no such alerts.")
        return
    table = shown.Table("alert", "about", "state", "severity", "since", "times", "what was found", "id")
    for one in found:
        table.add_row(
            one["rule"],
            one["subject"],
            _state(one),
            one["severity"],
            shown.time(one["since"]),
            str(one["count"]),
            one["sentence"],
            one["alert_id"],
        )
    shown.print_one(table)


def alert(found: Json) -> None:
    """One alert, whole."""
    print(f"{found['alert_id']}: {found['rule']} of {found['subject']} is {_state(found)} ({found['severity']})")
    print(f"since {shown.time(found['since'])}, found {found['count']} times")
    print(found["sentence"])
    if found["evidence"]:
        print(f"evidence: {json.dumps(found['evidence'])}")


def silences(found: list[Json]) -> None:
    """A list of silences."""
    if not found:
        print("Nothing is silenced.")
        return
    table = shown.Table("silence", "matches", "since", "until", "by", "reason")
    for one in found:
        matches = ", ".join(f"{name} {pattern}" for name, pattern in one["match"].items() if pattern)
        until = f"{shown.time(one['until'])}{' (expired)' if one['is_over'] else ''}"
        row = (one["silence_id"], matches, shown.time(one["since"]), until, one["by"], one["reason"])
        table.add_row(*row)
    shown.print_one(table)


def _state(found: Json) -> str:
    seen = f", acknowledged by {found['acknowledged']['by']}" if found["acknowledged"] else ""
    return f"{found['state']}{seen}{', silenced' if found['silenced_by'] else ''}"
