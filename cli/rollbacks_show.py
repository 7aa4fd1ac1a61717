"""How rollbacks, their report and quarantine look to a person."""

from datetime import datetime

from cli.outcome import Json
from cli.shown import Table, duration, number, print_one, time


def rollbacks(found: list[Json]) -> None:
    """A model's rollbacks."""
    if not found:
        print("Nothing was taken back yet.")
        return
    shown = Table("detected", "trigger", "from", "to", "by", "to zero traffic", "reason")
    for rollback in found:
        shown.add_row(
            time(rollback["detected_at"]),
            rollback["trigger"],
            number(rollback["from_version"]),
            number(rollback["to_version"]),
            rollback["by"],
            _took(rollback),
            rollback["reason"],
        )
    print_one(shown)


def taken_back(endpoint: Json) -> None:
    """An endpoint of which something was just taken back."""
    rollback, serves = endpoint["rollback"], "nothing serves"
    if endpoint["stable"] is not None:
        serves = f"version {endpoint['stable']} serves"
    if rollback is None:
        # The pods were quicker than the answer.
        print(f"it is taken back, and no pod sends it traffic any more; {serves}")
    else:
        print(f"version {rollback['from_version']} is taken back, as soon as the pods apply it; {serves}")
    quarantined(endpoint["quarantined"])


def report(value: Json) -> None:
    """The report of rollbacks."""
    if not value["rollbacks"]:
        print("Nothing was taken back in that time.")
        return
    shown = Table("trigger", "rollbacks")
    for trigger, count in value["by_trigger"].items():
        if count:
            shown.add_row(trigger, str(count))
    print_one(shown)
    share = f"{value['success_share'] * 100:.0f} %"
    print(
        f"{value['rollbacks']} rollbacks, {value['automatic']} of them by Slipway itself; {share} confirmed by the pods"
    )
    for name, words in (("from_fault", "from the fault"), ("from_detection", "from its detection")):
        times = value[name]
        if times["n"]:
            mean, p95 = duration(times["mean_s"]), duration(times["p95_s"])
            print(f"to zero traffic {words}: mean {mean}, p95 {p95}, of {times['n']}")


def quarantined(found: list[Json]) -> None:
    """Versions in quarantine."""
    if not found:
        print("No version is in quarantine.")
        return
    shown = Table("version", "since", "rollout", "why")
    for held in found:
        shown.add_row(str(held["version"]), time(held["at"]), held["rollout_id"] or "-", held["reason"])
    print_one(shown)


def _took(rollback: Json) -> str:
    if rollback["zero_traffic_at"] is None:
        return "not confirmed"
    begun, done = (datetime.fromisoformat(rollback[name]) for name in ("detected_at", "zero_traffic_at"))
    return duration((done - begun).total_seconds())
