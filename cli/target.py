"""Which system a command talks to.

Each address comes from its option, else from its environment variable, else from the `up.json` of a system that runs
on this machine. Nothing is looked up, and no file is read, before a command asks for it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from cli.bearer import Bearer
from cli.outcome import CliError, ExitCode
from local.state import DEFAULT_STATE_DIR, Running, StateDir

STATE_DIR_VARIABLE = "SLIPWAY_STATE_DIR"


@dataclass(frozen=True, kw_only=True)
class Target:
    """The options as given, and the environment to fall back on."""

    environment: Mapping[str, str]
    url: str | None = None
    server_url: str | None = None
    key: str | None = None
    storage: str | None = None
    as_json: bool = False
    """Whether the answer goes to a program, as it is, and not to a person's terminal."""

    @cached_property
    def functions_url(self) -> str:
        """The root of the functions app, under which `/api` lies. Raises CliError."""
        return self._address("url", "SLIPWAY_URL", "--url", "functions_url").rstrip("/")

    @cached_property
    def model_server_url(self) -> str:
        """The root of the model server. Raises CliError."""
        return self._address("server_url", "SLIPWAY_SERVER_URL", "--server-url", "server_url").rstrip("/")

    @cached_property
    def api_key(self) -> str:
        """The functions app's key; empty where the app was named and no key was: it may need none. Raises CliError."""
        given = self.key or self.environment.get("SLIPWAY_KEY")
        if given:
            return given
        # The key of this machine's system is not for another one.
        if self.url or self.environment.get("SLIPWAY_URL"):
            return ""
        return self._running("--url", "SLIPWAY_URL").key

    @cached_property
    def bearer(self) -> Bearer:
        """What signs in to the functions app; nothing for this machine's own. Raises CliError."""
        is_named = self.url or self.environment.get("SLIPWAY_URL")
        return Bearer(self.environment if is_named else {})

    @cached_property
    def storage_connection(self) -> str:
        """The storage account's connection string, or the URL of its blob service. Raises CliError."""
        return self._address("storage", "SLIPWAY_STORAGE", "--storage", "storage_connection")

    @cached_property
    def state(self) -> StateDir:
        """The state directory of this machine's system."""
        return StateDir(state_path(None, self.environment))

    def _address(self, attribute: str, variable: str, option: str, field: str) -> str:
        given: str | None = getattr(self, attribute) or self.environment.get(variable)
        if given:
            return given
        found: str = getattr(self._running(option, variable), field)
        return found

    def _running(self, option: str, variable: str) -> Running:
        running = self.state.running()
        if running is None and self.state.is_held():
            raise CliError(
                f"the system on {self.state.path} is starting or stopping: ask again when `slipway up` says it runs",
                ExitCode.NOT_REACHABLE,
                "unavailable",
            )
        if running is None:
            raise CliError(
                f"no system runs on this machine: start one with `slipway up`, or name another with {option} or "
                f"{variable}, or with {STATE_DIR_VARIABLE} one that was started with --state-dir",
                ExitCode.NOT_REACHABLE,
                "unavailable",
            )
        return running


def state_path(given: Path | None, environment: Mapping[str, str]) -> Path:
    """The state directory: as given, else as SLIPWAY_STATE_DIR says, else `.slipway` in the repository."""
    named = environment.get(STATE_DIR_VARIABLE)
    return (given or (Path(named) if named else DEFAULT_STATE_DIR)).absolute()
