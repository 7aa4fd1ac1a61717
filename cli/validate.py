"""`slipway validate`: the checks that a version must pass, on this machine, before the model is pushed."""

import contextlib
import html
import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated

import typer

from cli.command import JsonOption
from cli.outcome import Answer, ExitCode, Json, tell
from cli.policies import read_policy
from cli.printable import printable
from cli.push import packed
from cli.reports import write
from shared.core.errors import InvalidInputError

_REPORTS = (".html", ".json")


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command()(validate)


def validate(
    path: Annotated[Path, typer.Argument(metavar="FILE|FOLDER", help="An .onnx file, a .zip bundle, or a folder.")],
    *,
    policy: Annotated[
        str | None, typer.Option("--policy", metavar="FILE", help="A policy, JSON or YAML; the defaults without it.")
    ] = None,
    champion: Annotated[
        Path | None, typer.Option("--champion", metavar="FILE|FOLDER", help="A drop to compare with.")
    ] = None,
    report: Annotated[
        list[Path] | None, typer.Option("--report", metavar="FILE", help="Write the report: .html or .json, or both.")
    ] = None,
    json_output: JsonOption = False,
) -> int:
    """Validate a model on this machine, as it would be after a push. Needs no running system."""
    from local.validation import policy_from, validate_file  # noqa: PLC0415 - heavy

    for target in report or []:
        if target.suffix.lower() not in _REPORTS:
            raise InvalidInputError(f"{target} is neither .html nor .json: name the report's file so")
    wanted = policy_from(read_policy(policy) if policy else {})
    with contextlib.ExitStack() as open_files:
        file = open_files.enter_context(packed(path))
        beside = open_files.enter_context(packed(champion)) if champion else None
        progress = open_files.enter_context(_progress())
        found = validate_file(file, policy=wanted, champion=beside, progress=progress)
    value: Json = {"accepted": found.accepted, "refusal": found.refusal, "report": found.report}
    document = {"refusal": found.refusal} if found.report is None else found.report
    page = found.page or _refusal_page(path.name, found.refusal or {})
    for target in report or []:
        write(target, page if target.suffix.lower() == ".html" else json.dumps(document, indent=2))
    exit_code = ExitCode.OK if found.accepted else ExitCode.FAILED
    return tell(Answer(value=value, show=lambda: _show(printable(value)), exit_code=exit_code), as_json=json_output)


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """Shows on standard error what is being done; what is done stays, with the seconds that it took."""
    from rich.console import Console  # noqa: PLC0415 - half a second

    console = Console(stderr=True)
    began: list[tuple[str, float]] = []

    def end() -> None:
        if began:
            text, at = began.pop()
            console.print(f"  {text}: {time.monotonic() - at:.1f} s", style="dim", highlight=False)

    with console.status("starting") as shown:

        def progress(text: str) -> None:
            end()
            began.append((str(text), time.monotonic()))
            shown.update(str(text))

        try:
            yield progress
        finally:
            end()


def _refusal_page(name: str, refusal: Mapping[str, str]) -> str:
    """A page that takes the place of the report of an earlier drop: a refused one has none."""
    title, code, reason = (html.escape(text) for text in (name, refusal.get("code", ""), refusal.get("reason", "")))
    return (
        f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>{title}</title>\n<h1>{title}</h1>\n'
        f"<p>The drop was refused, and nothing was validated: {reason} (<code>{code}</code>)</p>\n</html>\n"
    )


def _show(value: Json) -> None:
    from cli import show  # noqa: PLC0415

    show.validated(value)
