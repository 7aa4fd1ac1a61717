"""How retention, dead letters and audits of artifacts look to a person."""

import json

from cli.outcome import Json
from cli.shown import Table, print_one

_SHORT_ID = 12


def retention_plan(plan: Json) -> None:
    """What retention would do, and what keeps the rest."""
    if plan["keep"]:
        kept = Table("kept", "state", "because")
        for version in plan["keep"]:
            kept.add_row(str(version["version"]), version["state"], "; ".join(version["reasons"]))
        print_one(kept)
    if not plan["archive"] and not plan["delete"]:
        print(f"{plan['model']}: there is nothing to archive or delete")
        return
    if plan["archive"]:
        gone = Table("to archive", "state", "because")
        for version in plan["archive"]:
            gone.add_row(str(version["version"]), version["state"], version["reason"])
        print_one(gone)
    if plan["delete"]:
        blobs = Table("to delete", "size", "what it is")
        for blob in plan["delete"]:
            name = f"{blob['container']}/{blob['name']}"
            blobs.add_row(name, size(blob["size_bytes"]), blob["reason"])
        print_one(blobs)
    more = "; there is more than one plan holds" if plan["is_partial"] else ""
    print(f"{len(plan['archive'])} versions, {len(plan['delete'])} blobs, {size(plan['size_bytes'])}{more}")
    print(f"nothing is done yet: `slipway retention run {plan['model']} {plan['plan_id']}` does exactly this")


def retention_run(run: Json) -> None:
    """How a run stands."""
    archived = ", ".join(map(str, run["archived"])) or "none"
    print(f"{run['run_id']} of {run['model']} is {run['state']}; archived versions: {archived}")
    if run["state"] == "done":
        print(f"{run['deleted']} of {run['blobs']} blobs are gone, {size(run['deleted_bytes'])}")
    elif run["delete_after"]:
        print(f"{run['blobs']} blobs, {size(run['size_bytes'])}, are deleted after {_time(run['delete_after'])}")
    for sentence in run["spared"]:
        print(f"  {sentence}")


def retention_runs(runs: list[Json]) -> None:
    """A model's runs."""
    if not runs:
        print("There was no run yet.")
    for run in runs:
        retention_run(run)


def letters(found: list[Json]) -> None:
    """A list of dead letters."""
    if not found:
        print("There are no such dead letters.")
        return
    table = Table("dead letter", "queue", "state", "times", "last seen", "reason")
    for letter in found:
        table.add_row(
            letter["letter_id"],
            letter["queue"],
            letter["state"],
            str(letter["count"]),
            _time(letter["last_seen_at"]),
            letter["reason"],
        )
    print_one(table)


def letter(found: Json) -> None:
    """One dead letter, whole."""
    print(f"{found['letter_id']} of {found['queue']} is {found['state']}")
    print(f"reason: {found['reason']}")
    print(f"failed attempts that are known: {found['attempts']}; failed for the last time: {found['count']} times")
    print(f"first seen {_time(found['first_seen_at'])}, last seen {_time(found['last_seen_at'])}")
    encoding = "" if found["body"]["encoding"] == "text" else f" ({found['body']['encoding']})"
    # As JSON text, so that no control character of a hostile body reaches the terminal.
    print(f"body{encoding}: {json.dumps(found['body']['content'])}")


def artifacts(value: Json) -> None:
    """What an audit of artifacts came to."""
    counted = f"{value['versions']} versions, {size(value['hashed_bytes'])} hashed"
    if not value["findings"]:
        print(f"all artifacts are what was registered: {counted}")
        return
    print(f"artifacts are NOT what was registered: {counted}")
    for finding in value["findings"]:
        print(f"  version {finding['version']} of {finding['model']}: {finding['sentence']}")


def size(size_bytes: int) -> str:
    """A size in a unit that reads well."""
    scaled = float(size_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if scaled < 1_000:
            return f"{scaled:.3g} {unit}"
        scaled /= 1_000
    return f"{scaled:.3g} TB"


def _time(text: str | None) -> str:
    return (text or "").replace("T", " ").split(".")[0].removesuffix("Z")
