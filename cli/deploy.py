"""`slipway deploy`: the resources in Azure, made or looked at beforehand, by the Azure CLI. `slipway package`: the app.

Two steps: `resources` (infra/bicep/main.bicep, at the scope of the subscription) and `drops` (eventgrid.bicep, in the
resource group that the first one made, and by what it put out). Every command is shown before it runs; nothing is
changed before somebody said yes. Who is signed in, and to which subscription, is the Azure CLI's own business.
"""

import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cli.command import JsonOption
from cli.deploy_package import package
from cli.outcome import Answer, CliError, ExitCode, Json, tell
from shared.core.errors import InvalidInputError

REPOSITORY = Path(__file__).resolve().parent.parent
_OUTPUTS = ("RESOURCE_GROUP", "EVENTS_TOPIC_NAME", "STORAGE_NAME")


class Environment(StrEnum):
    """What can be deployed: each has a file of parameters."""

    DEV = "dev"
    STAGING = "staging"
    PRODUCTION = "production"


class Step(StrEnum):
    """What is deployed, in this order."""

    RESOURCES = "resources"
    DROPS = "drops"


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """One environment's commands of the Azure CLI."""

    environment: Environment
    location: str | None
    """In place of the one in the file of parameters."""

    @property
    def name(self) -> str:
        """What the deployment is called, in the subscription. A deployment keeps its location: another is another."""
        return f"slipway-{self.environment}{self._elsewhere}"

    @property
    def parameters(self) -> str:
        """The file of parameters, from the root of the repository on."""
        return f"infra/bicep/main.parameters.{self.environment}.json"

    def resources(self, verb: str) -> list[str]:
        """The first step; `verb` is create or what-if. Raises InvalidInputError."""
        command = ["deployment", "sub", verb, "--name", self.name, "--location", self.location or self._own_location()]
        command += ["--template-file", "infra/bicep/main.bicep", *_asking(verb), "--parameters", self.parameters]
        if self._elsewhere:
            command += ["--parameters", f"location={self.location}", f"groupName=rg-{self.name}"]
        return command

    def outputs(self) -> list[str]:
        """Asks what the first step put out."""
        return ["deployment", "sub", "show", "--name", self.name, "--query", "properties.outputs", "--output", "json"]

    def drops(self, verb: str, outputs: Mapping[str, str]) -> list[str]:
        """The second step, by what the first one put out."""
        command = ["deployment", "group", verb, "--name", f"{self.name}-drops"]
        command += ["--resource-group", outputs["RESOURCE_GROUP"]]
        command += ["--template-file", "infra/bicep/eventgrid.bicep", *_asking(verb), "--parameters"]
        return [*command, f"topicName={outputs['EVENTS_TOPIC_NAME']}", f"storageName={outputs['STORAGE_NAME']}"]

    @property
    def _elsewhere(self) -> str:
        """The end of names in another location: there no group of the same name can be made while the first is."""
        return "" if self.location in {None, self._own_location()} else f"-{self.location}"

    def _own_location(self) -> str:
        try:
            given = json.loads((REPOSITORY / self.parameters).read_text("utf-8"))["parameters"]["location"]["value"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InvalidInputError(
                f"{self.parameters} names no location ({error}): set it there, or give --location"
            ) from error
        return str(given)


def _asking(verb: str) -> list[str]:
    """A what-if is for those too who may only ask: else Azure refuses whoever may not write every resource."""
    return ["--validation-level", "ProviderNoRbac"] if verb == "what-if" else []


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    app.command()(deploy)
    app.command()(package)


def deploy(
    environment: Annotated[Environment, typer.Argument(help="By its file of parameters in infra/bicep.")],
    *,
    what_if: Annotated[bool, typer.Option("--what-if", help="Show what would change, and change nothing.")] = False,
    location: Annotated[
        str | None, typer.Option("--location", help="The region, in place of the one in the file of parameters.")
    ] = None,
    only: Annotated[
        Step | None, typer.Option("--only", help="One step: the resources, or the events that tell the app of drops.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json_output: JsonOption = False,
) -> int:
    """Deploy the resources to Azure by the Azure CLI, or show what would change."""
    if location is not None and not location.isalnum():
        raise InvalidInputError(f"{location!r} is no name of a region: use one that `az account list-locations` names")
    az = _Az(program=_find(), quiet=json_output)
    deployment = Deployment(environment=environment, location=location)
    verb = "what-if" if what_if else "create"
    resources = None if only is Step.DROPS else deployment.resources(verb)
    if not what_if and not yes:
        _ask(deployment, resources, quiet=json_output)
    done = [] if resources is None else [az.run(resources)]
    outputs: Mapping[str, str] | None = None
    if only is not Step.RESOURCES:
        outputs = az.outputs(deployment, may_be_absent=what_if)
        if outputs is not None:
            done.append(az.run(deployment.drops(verb, outputs), hint=_LATER))
    value: Json = {"environment": environment.value, "what_if": what_if, "commands": done}
    return tell(Answer(value=value, show=_shown(only, outputs)), as_json=json_output)


_LATER = "if its roles were refused: they take some minutes after the first step; then run it again with `--only drops`"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Az:
    """The Azure CLI, which speaks for itself: its output goes where ours does."""

    program: str
    quiet: bool
    """Whether standard output is kept for the one JSON value."""

    def run(self, command: list[str], *, hint: str = "") -> str:
        """Show the command and run it; what was shown. Raises CliError where it fails."""
        shown = shlex.join(["az", *command])
        print(f"$ {shown}", file=sys.stderr, flush=True)
        ended = subprocess.run(
            [self.program, *command], cwd=REPOSITORY, stdout=sys.stderr if self.quiet else None, check=False
        )
        if ended.returncode != 0:
            said = f"az ended with {ended.returncode}, and says above why; `az login` where it is about signing in"
            raise CliError(f"{said}; {hint}" if hint else said, ExitCode.FAILED, "az_failed")
        return shown

    def outputs(self, deployment: Deployment, *, may_be_absent: bool) -> dict[str, str] | None:
        """What the first step put out; None where it was not made yet, and need not have been. Raises CliError."""
        asked = subprocess.run(
            [self.program, *deployment.outputs()],
            cwd=REPOSITORY,
            capture_output=True,
            check=False,
        )
        if asked.returncode != 0:
            if may_be_absent and b"DeploymentNotFound" in asked.stderr:
                return None
            said = asked.stderr.decode(errors="replace").strip()[-400:]
            raise CliError(
                f"the deployment {deployment.name} cannot be asked what it put out: {said or 'az says nothing'}; "
                f"`slipway deploy {deployment.environment} --only resources` makes it",
                ExitCode.FAILED,
                "az_failed",
            )
        return _read_outputs(asked.stdout, deployment)


def _read_outputs(told: bytes, deployment: Deployment) -> dict[str, str]:
    try:
        found = json.loads(told) or {}
        return {name: str(found[name]["value"]) for name in _OUTPUTS}
    except (ValueError, KeyError, TypeError) as error:
        raise CliError(
            f"the deployment {deployment.name} did not put out {', '.join(_OUTPUTS)} ({error}): it failed, or is an "
            f"older one; run `slipway deploy {deployment.environment} --only resources`",
            ExitCode.FAILED,
            "az_failed",
        ) from error


def _find() -> str:
    found = shutil.which("az")
    if found is None:
        raise CliError(
            "found no Azure CLI: install it (2.86 or later) so that az is on the PATH, and sign in with `az login`",
            ExitCode.FAILED,
            "no_az",
        )
    return found


def _ask(deployment: Deployment, resources: list[str] | None, *, quiet: bool) -> None:
    """Raises CliError where there is nobody to ask, and typer.Abort where the answer is no."""
    if quiet or not sys.stdin.isatty():
        raise CliError("nobody can be asked whether to go on: give --yes", ExitCode.USAGE, "usage")
    if resources is not None:
        print(f"$ {shlex.join(['az', *resources])}", file=sys.stderr)
    typer.confirm(f"Deploy to {deployment.environment}?", abort=True, err=True)


def _shown(only: Step | None, outputs: Mapping[str, str] | None) -> Callable[[], None]:
    def show() -> None:
        if only is not Step.RESOURCES and outputs is None:
            print(
                "the second step can be looked at when the first is done: there are no resources yet", file=sys.stderr
            )

    return show
