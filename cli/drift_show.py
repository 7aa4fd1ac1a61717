"""How drift reports look to a person."""

from cli.outcome import Json
from cli.shown import Table, print_one, state, time


def drift(value: Json, *, root: str) -> None:
    """Reports, and the requests for retraining. `root` is the functions app's address, under which pages lie."""
    if not value["reports"]:
        print("There is no report yet: one is made every hour, and by --now.")
    for report in value["reports"]:
        _report(report, root)
    if value["retraining"]:
        found = Table("retraining", "state", "version", "asked", "because")
        for request in value["retraining"]:
            found.add_row(
                request["request_id"],
                state(request["state"]),
                str(request["version"]),
                time(request["at"]),
                request["sentence"],
            )
        print_one(found)


def _report(report: Json, root: str) -> None:
    named = f"version {report['version']} ({report['role']})"
    if report["report_id"] is None:
        print(f"{named}: no report yet")
        return
    title = f"{named}, {time(report['since'])} to {time(report['until'])}: {_rows(report)}"
    found = Table("against", "outcome", "what was found", title=title)
    for finding in report["findings"]:
        found.add_row(finding["against"], state(finding["outcome"]), finding["sentence"])
    print_one(found)
    # What findings do not say: slow drift, performance.
    told = {finding["sentence"] for finding in report["findings"]}
    for sentence in report["sentences"]:
        if sentence not in told:
            print(f"  {sentence}")
    if report["most_to_blame"]:
        features = Table("feature", "PSI", "q", "effect")
        for feature in report["most_to_blame"]:
            features.add_row(
                feature["name"],
                f"{feature['psi']:.3g}",
                f"{feature['q_value']:.2g}",
                f"{feature['effect']:.3g}",
            )
        print_one(features)
    for alarm, episode in report.get("alarms", {}).items():
        print(f"  alarm {alarm} since {time(episode['since'])}")
    print(f"  page: {root}{report['page']} (asks for the key)")


def _rows(report: Json) -> str:
    """The rows that were counted and, where that is a share of them, of how many."""
    rows, asked = report["rows"], report.get("asked") or 0
    return f"{rows} rows, {rows / asked:.2%} of about {asked}" if asked > rows else f"{rows} rows"
