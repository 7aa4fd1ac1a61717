"""How answers look to a person. Everything here takes what the admin API gave, and prints or returns what to print."""

from collections.abc import Callable, Iterable

from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from cli import shown, watch_show
from cli.outcome import Json
from cli.shown import time

_SHOWN_METRICS = 4


def live(values: Iterable[Json], render: Callable[[Json], RenderableType]) -> None:
    """Show each value in place of the one before; where that is no terminal, each that differs below the one before."""
    console = Console()
    if not console.is_terminal:
        last: Json = None
        for value in values:
            if value != last:
                shown.print_one(render(value), console)
            last = value
        return
    with Live(console=console, auto_refresh=False) as screen:
        for value in values:
            screen.update(render(value), refresh=True)


def models(found: list[Json]) -> None:
    """The list of models."""
    if not found:
        print("There are no models yet: drop one with `slipway push FILE --model NAME`.")
        return
    table = shown.Table("model", "latest version", "in production")
    for model in found:
        table.add_row(model["model"], shown.number(model["latest_version"]), shown.number(model["production_version"]))
    shown.print_one(table)


def versions(model: Json) -> None:
    """A model's versions."""
    shown.print_one(_versions(model["model"], model["versions"]))


def version(value: Json) -> None:
    """One version, as it stands after a command."""
    shown.print_one(_versions(value["model"], [value]))


def policies(found: list[Json]) -> None:
    """The policies that were set."""
    if not found:
        print("No policy was set: the default one is in force.")
        return
    table = shown.Table("policy", "set", "by")
    for policy in found:
        table.add_row(str(policy["policy_version"]), time(policy["at"]), policy["by"])
    shown.print_one(table)


def alias(value: Json) -> None:
    """What an alias names, or named at a time."""
    named = "no version" if value["version"] is None else f"version {value['version']}"
    if "at" in value:
        print(f"at {time(value['at'])} {value['alias']} of {value['model']} named {named}")
        return
    reason = f": {value['reason']}" if value["reason"] else ""
    print(f"{value['alias']} of {value['model']} names {named}, since {time(value['since'])} by {value['by']}{reason}")


def aliases(found: list[Json]) -> None:
    """A model's aliases."""
    if not found:
        print("There are no aliases yet: set one with `slipway alias set MODEL ALIAS VERSION`.")
        return
    table = shown.Table("alias", "version", "since", "by", "reason")
    for one in found:
        table.add_row(
            one["alias"],
            shown.number(one["version"]),
            time(one["since"]),
            one["by"],
            one["reason"],
        )
    shown.print_one(table)


def alias_moves(found: list[Json]) -> None:
    """The moves of an alias, newest first."""
    table = shown.Table("move", "version", "at", "by", "reason")
    for move in found:
        table.add_row(
            str(move["sequence"]),
            shown.number(move["version"]),
            time(move["at"]),
            move["by"],
            move["reason"],
        )
    shown.print_one(table)


def pushed(value: Json) -> None:
    """What became of a push."""
    already = "" if value["created"] else " (these bytes lay there already)"
    print(f"dropped {value['container']}/{value['blob']}, {_size(value['size_bytes'])}{already}")
    drop, version = value["drop"], value["version"]
    if drop is not None and drop["state"] == "refused":
        print(f"refused: {drop['reason']}")
    if version is not None:
        print(f"version {version['version']} is {version['state']}")
        shown.print_one(shown.verdicts((version["validation"] or {}).get("verdicts", [])))


def validated(value: Json) -> None:
    """What a validation on this machine found."""
    if value["refusal"]:
        print(f"refused ({value['refusal']['code']}): {value['refusal']['reason']}")
        return
    report(value["report"])
    print(f"a version like this would be {'validated' if value['accepted'] else 'rejected'}")


def report(value: Json) -> None:
    """A validation report."""
    shown.print_one(shown.verdicts(value["verdicts"]))
    print(f"{value['outcome']}, on {value['rows']} rows, in {value['duration_s']:.1f} s")


def status(value: Json) -> RenderableType:
    """How one model stands, or all."""
    if "models" not in value:
        return _status_of(value)
    parts = [_status_of(model) for model in value["models"]]
    if value["refused_drops"]:
        parts.append(_refused("Drops at no model's place", value["refused_drops"]))
    return (
        shown.group(parts)
        if parts
        else Text("There are no models yet: drop one with `slipway push FILE --model NAME`.")
    )


def prediction(value: Json) -> None:
    """A model server's answer."""
    fallback = ", in place of one that failed" if value.get("fallback") else ""
    print(f"{value['predictions']}")
    print(f"version {value['model_version']} ({value.get('role')}{fallback}), {value['latency_ms']:.1f} ms")


def rollouts(value: Json) -> RenderableType:
    """An endpoint's rollouts: the past ones in a table, the latest in full."""
    endpoint = value["endpoint"]
    if not value["rollouts"]:
        return Text(f"endpoint {endpoint['endpoint']} has had no rollout")
    table = shown.Table("rollout", "version", "stable", "state", "share", "started", "ended", "reason")
    for found in value["rollouts"]:
        table.add_row(
            found["rollout_id"],
            str(found["version"]),
            shown.number(found["stable"]),
            shown.state(found["state"]),
            shown.share(found["weight_bp"]),
            time(found["started_at"]),
            time(found["ended_at"]),
            found["reason"] or "",
        )
    latest = endpoint["rollout"]
    return shown.group([table, watch_show.rollout(latest)]) if latest else table


def verified(value: Json) -> None:
    """Whether the audit is whole."""
    counted = f"{value['events']} events in {value['streams']} streams"
    if value["verified"]:
        print(f"the audit is whole: {counted}")
        return
    print(f"the audit is NOT whole: {counted}")
    for problem in value["problems"]:
        print(f"  {problem['stream']} event {problem['seq']}: {problem['problem']}")


def events(found: list[Json]) -> None:
    """The events of a stream."""
    if not found:
        print("There are no events in this stream.")
        return
    table = shown.Table("seq", "at", "kind", "data")
    for event in found:
        data = ", ".join(f"{name}={value}" for name, value in event["data"].items() if value not in (None, "", [], {}))
        table.add_row(str(event["seq"]), time(event["at"]), event["kind"], data)
    shown.print_one(table)


def _status_of(value: Json) -> RenderableType:
    parts: list[RenderableType] = [_versions(value["model"], value["versions"])]
    if value["waiting_drops"]:
        parts.append(_waiting(value["waiting_drops"]))
    if value["refused_drops"]:
        parts.append(_refused("Refused drops", value["refused_drops"]))
    endpoint = value["endpoint"]
    if endpoint is None:
        parts.append(Text("nothing is served yet"))
    else:
        stable = "no version yet" if endpoint["stable"] is None else f"version {endpoint['stable']}"
        stable += f" in pods of its own ({endpoint['slot']})" if endpoint.get("slot") else ""
        parts.append(Text(f"serves {stable}; route plan generation {endpoint['generation']}"))
        if endpoint["queued_version"] is not None:
            parts.append(Text(f"version {endpoint['queued_version']} is rolled out next"))
        if endpoint["refused"]:
            parts.append(Text(f"not rolled out by policy: {endpoint['refused']['reason']}", "yellow"))
        if endpoint["rollout"]:
            parts.append(watch_show.rollout(endpoint["rollout"]))
    return shown.group(parts)


def _versions(model: str, found: list[Json]) -> RenderableType:
    if not found:
        return Text(f"{model} has no versions")
    table = shown.Table("version", "state", "aliases", "registered", "metrics", "why not", title=model)
    for version in found:
        metrics = (version["validation"] or {}).get("metrics") or {}
        table.add_row(
            str(version["version"]),
            shown.state(version["state"]),
            ", ".join(version["aliases"]),
            time(version["registered_at"]),
            _metrics(metrics),
            "; ".join(_hindrances(version)),
        )
    return table


def _metrics(found: dict[str, float | None]) -> str:
    """The first metrics, which are the usual ones; the report has all."""
    known = [f"{name} {value:.4g}" for name, value in found.items() if value is not None]
    more = [f"{len(known) - _SHOWN_METRICS} more"] if len(known) > _SHOWN_METRICS else []
    return ", ".join(known[:_SHOWN_METRICS] + more)


def _hindrances(version: Json) -> list[str]:
    """What keeps a version from serving: verdicts that do not pass, and what holds its rollout back."""
    verdicts = (version["validation"] or {}).get("verdicts", [])
    failed = [
        verdict["sentence"] for verdict in verdicts if verdict["outcome"] != "pass" and not verdict.get("advisory")
    ]
    return failed + ([version["rollout_held"]] if version["rollout_held"] else [])


def _waiting(drops: list[Json]) -> RenderableType:
    table = shown.Table("drop", "seen", "waits for", title="Drops that are not complete")
    for drop in drops:
        table.add_row(drop["blob"], time(drop["seen_at"]), "; ".join(drop["waiting_for"]))
    return table


def _refused(title: str, drops: list[Json]) -> RenderableType:
    table = shown.Table("blob", "seen", "reason", title=title)
    for drop in drops:
        table.add_row(drop["blob"], time(drop["seen_at"]), drop["reason"] or "")
    return table


def _size(size_bytes: int) -> str:
    return f"{size_bytes} bytes" if size_bytes < 10_000 else f"{size_bytes / 1e6:.2f} MB"
