"""How a rollout looks to a person: live in a terminal, a line at a time elsewhere, and step by step afterwards."""

from collections.abc import Iterable
from typing import TextIO

from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from cli.outcome import Json
from cli.shown import Table, duration, group, number, outcome, print_one, share, state, time

_BAR = 20
_NAMED_PODS = 5


def rollout(value: Json) -> RenderableType:
    """One rollout in full."""
    parts: list[RenderableType] = [Text(f"rollout of version {value['version']} on ") + _head(value)]
    if value["ended_at"] is None:
        parts += [_stages(value), *_lines(value)]
    parts += _exposed(value)
    if value["reason"]:
        parts.append(Text(value["reason"]))
    if value["reverted"]:
        parts.append(Text(f"taken back by {value['reverted']['by']}: {value['reverted']['reason']}"))
    if value["verdicts"]:
        parts.append(_gates(value["verdicts"]))
    return group(parts)


def live(values: Iterable[Json], out: TextIO | None = None) -> None:
    """Show each state of a rollout in place of the one before; where `out` is no terminal, in lines.

    `out` is standard output where none is given.
    """
    console = Console(file=out)
    if not console.is_terminal:
        plain(values, out)
        return
    with Live(console=console, auto_refresh=False) as shown:
        for value in values:
            shown.update(rollout(value), refresh=True)


def plain(values: Iterable[Json], out: TextIO | None = None) -> None:
    """A line for each thing that happens."""
    before: object = None
    for value in values:
        now = _what_matters(value)
        if now != before:
            print(line(value), flush=True, file=out)
        before = now


def line(value: Json) -> str:
    """A rollout as it stands, in one line."""
    left = f"; at least {duration(value['left_s'])} left" if value["left_s"] else ""
    if value["ended_at"] is not None:
        return f"{_head(value).plain}: {(value['reverted'] or value)['reason']}"
    failed = f"; {value['failed_checks']} of {value['failure_limit']} failed checks" if value["failed_checks"] else ""
    pods = value["convergence"]
    failing = f"; {len(pods['failing'])} pods failing" if pods and pods["failing"] else ""
    return f"{_head(value).plain}: waits for {value['waiting_for']}{failed}{failing}{left}"


def history(found: list[Json]) -> None:
    """The steps of rollouts, oldest first."""
    if not found:
        print("Nothing has happened here yet.")
        return
    steps = Table("at", "what", "version", "stage", "share", "by", "why")
    for event in found:
        data = event["data"]
        stage, weight_bp = data.get("stage"), data.get("weight_bp")
        steps.add_row(
            time(event["at"]),
            event["kind"],
            number(data.get("version")),
            "-" if stage is None else str(stage + 1),
            "-" if weight_bp is None else share(weight_bp),
            data.get("by") or data.get("requested_by") or "slipway",
            _why(data),
        )
    print_one(steps)


def _why(data: Json) -> str:
    if data.get("reason"):
        return str(data["reason"])
    verdicts = data.get("verdicts") or []
    return "; ".join(verdict["sentence"] for verdict in verdicts if verdict["outcome"] == "fail")


def _what_matters(value: Json) -> object:
    """What makes a line of its own: not the seconds that pass, nor what a tick says that changes nothing."""
    pods = value["convergence"] or {"ready": [], "failing": {}}
    names = ("state", "stage", "weight_bp", "mirror_bp", "waiting", "failed_checks", "errored_checks")
    said = "" if value["waiting"] == "time" else value["waiting_for"]
    return [value[name] for name in names], said, len(pods["ready"]), sorted(pods["failing"])


def _head(value: Json) -> Text:
    at = ""
    if value["ended_at"] is None:
        stage = "" if value["stage"] is None else f", stage {value['stage'] + 1} of {len(value['stages'])}"
        mirrored = f", {share(value['mirror_bp'])} mirrored" if value["mirror_bp"] else ""
        at = f" at {share(value['weight_bp'])}{mirrored}{stage if value['state'] != 'watching' else ''}"
        at += f", in pods of its own ({value['slot']})" if value.get("slot") else ""
    if value["reverted"]:
        at = f", then taken back for version {value['reverted']['to_version']}"
    marks = [mark for mark in ("forced", "overridden") if value[mark]]
    said = {"forced": ", by force", "overridden": ", by override"}
    return Text.assemble(
        f"{value['endpoint']}, {value['strategy']}: ", state(value["state"]), at, *(said[mark] for mark in marks)
    )


def _stages(value: Json) -> Table:
    """The stages with their shares, and which is on."""
    shown = Table("", "stage", "share", "least", "at most", "")
    current = len(value["stages"]) if value["state"] == "watching" else value["stage"]
    for index, stage in enumerate(value["stages"]):
        quiet = stage.get("mirror_bp")
        weight = f"{share(quiet)} mirrored" if quiet else share(stage["weight_bp"])
        if index == current and stage["weight_bp"] != value["weight_bp"]:
            weight = f"{share(value['weight_bp'])}, set from {weight}"
        limit = duration(stage["max_duration_s"]) if stage["max_duration_s"] is not None else ""
        shown.add_row(
            _mark(index, current),
            str(index + 1),
            weight,
            duration(stage["duration_s"]),
            limit,
            _note(value, index, needs_approval=stage["approval"], is_on=index == current),
        )
    if value["watch_s"] or value["switch_approval"]:
        index = len(value["stages"])
        note = _note(value, index, needs_approval=value["switch_approval"], is_on=index == current)
        name = "watch" if value["watch_s"] else "switch"
        shown.add_row(_mark(index, current), name, "100 %", duration(value["watch_s"]), "", note)
    return shown


def _mark(index: int, current: int | None) -> str:
    if current is None or index > current:
        return ""
    return "now" if index == current else "done"


def _note(value: Json, index: int, *, needs_approval: bool, is_on: bool) -> str:
    if is_on and value["stage_left_s"] is not None and value["stage_started_at"] is not None:
        age_s, left_s = value["stage_age_s"] or 0.0, value["stage_left_s"]
        done = 1.0 if left_s <= 0 else age_s / (age_s + left_s)
        filled = round(done * _BAR)
        return f"{'#' * filled}{'.' * (_BAR - filled)} {duration(age_s)}"
    if not needs_approval:
        return ""
    by = next((approval["by"] for approval in value["approvals"] if approval["stage"] == index), None)
    return f"approved by {by}" if by else "needs approval"


def _lines(value: Json) -> list[Text]:
    """What it waits for, the pods, the failed checks and the time."""
    found = [Text(f"waits for {value['waiting_for']}", "yellow" if value["waiting"] in {"approval", "person"} else "")]
    pods = value["convergence"]
    if pods:
        counts = f"{len(pods['ready'])} of {len(pods['reporting'])} ready, {len(pods['failing'])} failing"
        found.append(Text(f"pods: {counts}, {len(pods['silent'])} silent"))
        shown = list(pods["failing"].items())[:_NAMED_PODS]
        found += [Text(f"  {name} cannot load it: {why}", "red") for name, why in shown]
    if value["rolled"]:
        more = f" and {len(value['rolled']) - _NAMED_PODS} more" if len(value["rolled"]) > _NAMED_PODS else ""
        found.append(Text(f"rolled pods: {', '.join(value['rolled'][:_NAMED_PODS])}{more}"))
    style = "red" if value["failed_checks"] else ""
    found.append(
        Text(f"failed checks without a pass between: {value['failed_checks']} of {value['failure_limit']}", style)
    )
    if value["left_s"]:
        found.append(Text(f"at least {duration(value['left_s'])} left"))
    return found


def _exposed(value: Json) -> list[Text]:
    """How many requests each side was given while both had a share, beside what the shares called for."""
    exposures = value["exposures"]
    total = exposures["candidate"] + exposures["stable"]
    if not total:
        return []
    found, wanted = exposures["candidate"] / total, exposures["expected"] / total
    candidate = f"{exposures['candidate']} requests to version {value['version']}"
    said = f"{candidate} ({found:.2%}; the shares call for {wanted:.2%}), {exposures['stable']} to {value['stable']}"
    return [Text(f"assigned while both had a share: {said}")]


def _gates(verdicts: list[Json]) -> Table:
    """What the gates found, with their figures."""
    shown = Table("gate", "outcome", "value", "interval", "limit", "n", "what was found")
    for verdict in verdicts:
        interval = verdict.get("interval")
        shown.add_row(
            verdict["check"],
            outcome(verdict),
            _figure(verdict.get("value")),
            "-" if interval is None else f"{_figure(interval[0])} to {_figure(interval[1])}",
            _figure(verdict.get("limit")),
            number(verdict.get("n")),
            verdict["sentence"],
        )
    return shown


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
