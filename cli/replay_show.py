"""How a policy's dry-run looks to a person: a line a rollout, then the decisions that would flip."""

from cli import shown
from cli.outcome import Json
from cli.shown import time


def replays(found: list[Json]) -> None:
    """What a policy would have decided in each rollout."""
    if not found:
        print("There are no rollouts to try the policy on.")
        return
    table = shown.Table("rollout", "version", "ended", "would end", "at tick", "why")
    for one in found:
        table.add_row(
            one["rollout_id"],
            str(one["version"]),
            one["ended"],
            _would_end(one),
            shown.number(one["parted_at"]),
            one["why"],
        )
    shown.print_one(table)
    for one in found:
        _flips(one)
    parts = sorted({part for one in found for part in one["not_judged"]})
    if parts:
        print(f"Not judged, for the records show nothing of it: {', '.join(parts)}.")
    if any(one["is_judged"] and one["would_end"] is None for one in found):
        print("Unknown: past that tick the rollout would have had traffic that nobody ever saw.")


def _would_end(one: Json) -> str:
    if not one["is_judged"]:
        return "not judged"
    if one["would_end"] is None:
        return "unknown"
    return "the same" if one["parted_at"] is None else str(one["would_end"])


def _flips(one: Json) -> None:
    if not one["flips"]:
        return
    print(f"\n{one['rollout_id']}: {one['flip_count']} of {one['ticks']} decisions flip")
    table = shown.Table("tick", "at", "state", "then", "now", "why now")
    for flip in one["flips"]:
        past = " *" if flip["is_after_parting"] else ""
        table.add_row(
            f"{flip['tick']}{past}",
            time(flip["at"]),
            flip["state"],
            flip["then"] or "stay",
            flip["now"] or "stay",
            flip["now_why"],
        )
    shown.print_one(table)
    if any(flip["is_after_parting"] for flip in one["flips"]):
        print("* on traffic that it would no longer have had")
