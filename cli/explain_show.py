"""How a prediction's lineage looks to a person. What came from a drop is shown without its control characters."""

from collections.abc import Iterator

from rich.text import Text

from cli.outcome import Json
from cli.shown import Fields, print_one

_REASONS = {
    "assigned": "the plan gave it the request's subject",
    "fallback": "in place of a version that failed",
    "pinned": "the caller named it",
}


def lineage(value: Json) -> None:
    """All that is known of a prediction."""
    said = (*_prediction(value), *_version(value["version"]), *_generation(value), *_audit(value["audit"]))
    print_one(Fields([(label, _plain(text)) for label, text in said]))


def _prediction(value: Json) -> Iterator[tuple[str, str]]:
    claim = value["prediction"]
    yield "prediction", value["prediction_id"]
    yield (
        "answered by",
        f"version {claim['version']} of {claim['endpoint']}, {claim['role']}: {_REASONS[claim['reason']]}",
    )
    yield "at", f"{_time(claim['at'])}, by the process {claim['pod']}"
    if value["aliases"]:
        yield "known then as", ", ".join(value["aliases"])


def _version(version: Json) -> Iterator[tuple[str, str]]:
    manifest, data, validation = version["manifest"], version["data"], version["validation"]
    yield "version", f"{version['version']} of {version['model']}, now {version['state']}"
    if version["altered"]:
        yield "ALTERED", version["altered"]
    yield "dropped", f"{version['drop']}, registered {_time(version['registered_at'])}"
    yield "model", f"{version['model_file']}, sha256 {version['artifact_digest']}"
    for file in version["external"]:
        yield "", f"{file['name']}, sha256 {file['digest']}"
    yield "author claims", _claims(manifest)
    yield "training data", f"{data['training_data_version'] or 'not said'} (a claim)"
    for name in ("validation", "reference", "golden"):
        yield f"{name} data", f"sha256 {data[f'{name}_digest']}" if data[f"{name}_digest"] else "none"
    yield "signed by", version["signed_by"] or "nobody"
    if validation is None:
        yield "validation", "not concluded"
    else:
        yield "validation", f"{validation['outcome']}: slipway report {version['model']} {version['version']}"
    for approval in version["approvals"]:
        yield "approved by", f"{approval['by']}, {_time(approval['at'])}: {approval['reason']}"


def _claims(manifest: Json) -> str:
    named = [
        f"{name.replace('_', ' ')} {manifest[name]}"
        for name in ("author", "run_id", "git_commit")
        if manifest.get(name)
    ]
    return ", ".join([*named, *([manifest["description"]] if manifest.get("description") else [])]) or "nothing"


def _generation(value: Json) -> Iterator[tuple[str, str]]:
    found, promotion = value["generation"], value["promotion"]
    until = f", until {_time(found['superseded_at'])}" if found["superseded_at"] else ""
    yield "route plan", f"generation {found['generation']}, from {_time(found['published_at'])}{until}"
    for route in found["routes"]:
        yield "", f"version {route['version']}, {route['role']}, {route['weight_bp'] / 100:g} %"
    rollout = found["rollout"]
    stage = "" if rollout["stage"] is None else f", stage {rollout['stage'] + 1} of {rollout['stages']}"
    asked = f"asked for by {rollout['requested_by']}, under policy {rollout['policy_version']}"
    what = f"{rollout['rollout_id']} of version {rollout['version']}, {rollout['strategy']}{stage}"
    yield "rollout", f"{what}, {asked}; now {rollout['state']}"
    yield from _decision("decision", found["decision"])
    if promotion and promotion["seq"] != found["decision"]["seq"]:
        yield from _decision("made stable", promotion)


def _decision(label: str, decision: Json) -> Iterator[tuple[str, str]]:
    yield label, f"{decision['kind']}, {_time(decision['at'])}: {decision['reason']}"
    for verdict in decision["verdicts"]:
        yield "", f"{verdict['check']} {verdict['outcome']}: {verdict['sentence']}"


def _audit(audit: Json) -> Iterator[tuple[str, str]]:
    yield "audit", "the chains verify" if audit["verified"] else "THE CHAINS DO NOT VERIFY"
    for problem in audit["problems"]:
        yield "PROBLEM", f"{problem['stream']} event {problem['seq']}: {problem['problem']}"
    for event in audit["references"]:
        yield "", f"{event['stream']} event {event['seq']}, {_time(event['at'])}: {event['kind']}"


def _plain(text: str) -> Text:
    return Text("".join(letter if letter.isprintable() else " " for letter in text))


def _time(text: str) -> str:
    return text[:19].replace("T", " ")
