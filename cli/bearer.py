"""The bearer token that a command shows to the admin API, where that asks for sign-in beside the key.

`SLIPWAY_TOKEN` is the token itself; `SLIPWAY_TOKEN_COMMAND` prints one; `SLIPWAY_AUDIENCE` has the Azure CLI print one
for that application. The first of them that is set is used. A command runs once for as long as its token passes, is
given no shell, and what it prints is shown to nobody. A token goes to an app that was named, never to this machine's
own system.
"""

import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence

from cli.outcome import CliError, ExitCode

TOKEN_VARIABLE = "SLIPWAY_TOKEN"  # noqa: S105 - the name of a variable
COMMAND_VARIABLE = "SLIPWAY_TOKEN_COMMAND"
AUDIENCE_VARIABLE = "SLIPWAY_AUDIENCE"
_WITHIN_S = 60.0
_SHOWN = 300


class Bearer:
    """A source of tokens, asked when one is needed and again when it passes no more."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._given = environment.get(TOKEN_VARIABLE, "").strip()
        self._command = _command(environment)
        self._token = ""

    def header(self) -> dict[str, str]:
        """What to send; nothing where no token is configured. Raises CliError where none can be had."""
        if not self._token:
            self._token = self._given or self._asked()
        return {"authorization": f"Bearer {self._token}"} if self._token else {}

    def renew(self) -> bool:
        """Forget a token that was refused. Whether another one can be asked for."""
        if self._given or not self._command:
            return False
        self._token = ""
        return True

    def _asked(self) -> str:
        if not self._command:
            return ""
        program, *arguments = self._command
        found = shutil.which(program)
        if found is None:
            raise _no_token(f"{program} is not installed, or not on the path")
        try:
            ran = subprocess.run(
                [found, *arguments], stdin=subprocess.DEVNULL, capture_output=True, timeout=_WITHIN_S, check=False
            )
        except subprocess.TimeoutExpired:
            raise _no_token(f"{program} did not end within {_WITHIN_S:g} s") from None
        except OSError as error:
            raise _no_token(f"{program} cannot be run: {error}") from error
        if ran.returncode:
            said = ran.stderr.decode(errors="replace").strip().rpartition("\n")[2][:_SHOWN]
            raise _no_token(f"{program} ended with {ran.returncode}: {said or 'it says nothing'}")
        token = ran.stdout.decode(errors="replace").strip()
        if not token or any(not "!" <= character <= "~" for character in token):
            raise _no_token(f"{program} printed no token, or more than one")
        return token


def _command(environment: Mapping[str, str]) -> Sequence[str]:
    given = environment.get(COMMAND_VARIABLE, "").strip()
    if given:
        try:
            return shlex.split(given)
        except ValueError as error:
            raise CliError(f"{COMMAND_VARIABLE} cannot be read: {error}", ExitCode.USAGE, "usage") from None
    audience = environment.get(AUDIENCE_VARIABLE, "").strip()
    if not audience:
        return ()
    return ("az", "account", "get-access-token", "--resource", audience, "--query", "accessToken", "--output", "tsv")


def _no_token(why: str) -> CliError:
    return CliError(
        f"no token to sign in with: {why}; see {TOKEN_VARIABLE}, {COMMAND_VARIABLE} and {AUDIENCE_VARIABLE}",
        ExitCode.FAILED,
        "refused",
    )
