"""`slipway policy`: see, try and set what a model's versions must show, and how they are rolled out."""

import json
from pathlib import Path
from typing import Annotated

import typer

from cli.client import Client
from cli.command import command
from cli.models import read_json
from cli.outcome import Answer, Json
from cli.target import Target
from shared.core.errors import InvalidInputError
from shared.core.ids import model_name
from shared.core.yamltext import yaml_problem

_DRY_RUN_S = 230.0
"""What Azure lets an HTTP function take."""
_YAML = frozenset({".yaml", ".yml"})

_ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help="The model's name.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    group = typer.Typer(help="See, try and set a model's policy.", no_args_is_help=True)
    command(group)(show)
    command(group, "set")(put)
    command(group)(versions)
    command(group, "dry-run")(dry_run)
    app.add_typer(group, name="policy")


def show(
    target: Target,
    model: _ModelArgument,
    *,
    version: Annotated[
        int | None, typer.Option("--version", min=1, help="The policy that had this number, not the one in force.")
    ] = None,
) -> Answer:
    """Show a model's policy, as `policy set` takes it."""
    name = model_name(model)
    with Client(target) as client:
        if version is None:
            policy = client.get("models", name)["policy"]
        else:
            policy = client.get("models", name, "policy", "versions", str(version))["policy"]
    return Answer(value=policy, show=lambda: print(json.dumps(policy, indent=2)))


def put(
    target: Target,
    model: _ModelArgument,
    file: Annotated[str, typer.Argument(metavar="FILE", help="A JSON or YAML file; - reads JSON from standard input.")],
    *,
    expected_version: Annotated[
        int | None,
        typer.Option("--expected-version", min=0, help="Set it only if the policy in force has this number."),
    ] = None,
    by: Annotated[str, typer.Option("--by", metavar="NAME", help="Who you are; it goes into the audit.")] = "",
    reason: Annotated[str, typer.Option("--reason", help="Why; it goes into the audit.")] = "",
) -> Answer:
    """Set a model's policy, whole: what the file leaves out takes its default.

    One that loosens freeze windows, error budgets or approvals needs --by and --reason.
    """
    name = model_name(model)
    policy = read_policy(file)
    given = {"expected_version": "" if expected_version is None else str(expected_version), "by": by, "reason": reason}
    query = {name: value for name, value in given.items() if value}
    with Client(target) as client:
        found = client.put("models", name, "policy", body=policy, query=query)
    value = {key: found[key] for key in ("model", "policy_version", "policy")}
    return Answer(value=value, show=lambda: print(f"policy {value['policy_version']} of {name} is in force"))


def versions(target: Target, model: _ModelArgument) -> Answer:
    """List the policies that were set."""
    from cli import show as shown  # noqa: PLC0415

    with Client(target) as client:
        found = list(client.items("models", model_name(model), "policy", "versions"))
    return Answer(value={"policies": found}, show=lambda: shown.policies(found))


def dry_run(
    target: Target,
    model: _ModelArgument,
    file: Annotated[str, typer.Argument(metavar="FILE", help="A JSON or YAML file; - reads JSON from standard input.")],
    *,
    last: Annotated[int, typer.Option("--last", min=1, max=20, help="How many of the latest rollouts.")] = 5,
) -> Answer:
    """Show what a policy would have decided in a model's past rollouts. Changes nothing."""
    from cli import replay_show  # noqa: PLC0415

    body = {"policy": read_policy(file), "rollouts": last}
    with Client(target) as client:
        found = client.post("models", model_name(model), "policy", "dry-run", body=body, timeout_s=_DRY_RUN_S)["items"]
    return Answer(value={"rollouts": found}, show=lambda: replay_show.replays(found))


def read_policy(file: str) -> dict[str, Json]:
    """A policy as a file gives it, in JSON or YAML by its name, or standard input in JSON. Raises InvalidInputError."""
    is_yaml = Path(file).suffix.lower() in _YAML
    policy = _read_yaml(file) if is_yaml else read_json(file if file == "-" else f"@{file}", f"the contents of {file}")
    if not isinstance(policy, dict):
        raise InvalidInputError(f"{file} holds no object: use the form that `slipway policy show` gives")
    return policy


def _read_yaml(file: str) -> Json:
    import yaml  # noqa: PLC0415

    text = ""
    try:
        text = Path(file).read_text("utf-8")
        value = yaml.safe_load(text)
        # What YAML has and JSON has not, such as a date or NaN, shows here.
        return json.loads(json.dumps(value, allow_nan=False))
    except OSError as error:
        raise InvalidInputError(f"{file} cannot be read: {error.strerror}") from error
    except (LookupError, AttributeError) as error:
        raise InvalidInputError(f"{file} holds no policy in YAML: a value is not what its tag says") from error
    except (yaml.YAMLError, UnicodeDecodeError, TypeError, ValueError, RecursionError) as error:
        raise InvalidInputError(f"{file} holds no policy in YAML: {yaml_problem(error, text)}") from error
