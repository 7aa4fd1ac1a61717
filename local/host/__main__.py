"""`python -m local.host`: run the functions app of a directory.

    python -m local.host [--app-dir DIR] [--port N] [--keys FILE] [--settings NAME=VALUE ...]

It prints `ready http://127.0.0.1:PORT` when everything listens, and logs to standard error. Exit codes: 0 stopped as
told; 1 could not start; 2 wrong usage; 3 a function overran its time; 4 the host itself failed.
"""

import argparse
import asyncio
import logging
import os
import sys
from pathlib import Path
from typing import NoReturn

from local.host.errors import HostStartError
from shared.core.logs import use_json, wants_json

_DEFAULT_PORT = 7071
_FUNCTION_THREADS = "32"


def main() -> NoReturn:
    """Run the host; ends the process."""
    arguments = _parser().parse_args()
    app_dir = arguments.app_dir.resolve()
    keys_path = arguments.keys.resolve() if arguments.keys else app_dir / ".slipway" / "keys.json"
    _enter(app_dir, ["--port", str(arguments.port), "--keys", str(keys_path), *_options(arguments.settings)])
    for setting in arguments.settings:
        name, equals, value = setting.partition("=")
        if not (name and equals):
            _parser().error(f"--settings takes NAME=VALUE, not {setting!r}")
        os.environ[name] = value
    # In Azure each kind of function has instances of its own; here all share one pool, which must not starve HTTP.
    os.environ.setdefault("PYTHON_THREADPOOL_THREAD_COUNT", _FUNCTION_THREADS)
    _log_to_stderr()
    # Only now, for `_enter` begins the process anew: its packages take half a second of processor time.
    from local.host.host import Host  # noqa: PLC0415

    host = Host(
        app_dir=app_dir,
        port=arguments.port,
        keys_path=keys_path,
        environment=os.environ,
    )
    runner = asyncio.Runner()
    try:
        code = runner.run(host.run())
    except HostStartError as error:
        print(f"the functions host cannot start: {error}", file=sys.stderr)  # noqa: T201 - the last word
        code = 1
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    # A function that overstayed its grace still runs in a thread, which a usual exit would wait for.
    os._exit(code)


def _enter(app_dir: Path, options: list[str]) -> None:
    """Make the app's directory the first entry of the import path, as `python -m` makes the working directory."""
    if not app_dir.is_dir():
        sys.exit(f"the functions host cannot start: {app_dir} is not a directory: name the app's with --app-dir")
    if Path.cwd() != app_dir:
        os.chdir(app_dir)
        os.execv(sys.executable, [sys.executable, "-m", "local.host", *options])  # noqa: S606
    if Path(sys.path[0]).resolve() != app_dir:
        sys.exit("the functions host cannot start: run it with `python -m local.host`, without -P or PYTHONSAFEPATH")


def _options(settings: list[str]) -> list[str]:
    return [part for setting in settings for part in ("--settings", setting)]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m local.host", description="Run a functions app on this machine.")
    parser.add_argument("--app-dir", type=Path, default=Path(), help="the directory of function_app.py (default: here)")
    parser.add_argument("--port", type=int, default=_DEFAULT_PORT, help="the HTTP port; 0 picks a free one")
    parser.add_argument("--keys", type=Path, help="the keys file (default: .slipway/keys.json in the app's directory)")
    parser.add_argument("--settings", action="extend", nargs="+", default=[], metavar="NAME=VALUE", help="app settings")
    return parser


def _log_to_stderr() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    # The SDK logs each request, and the worker library each call; what matters of them the host logs itself.
    for chatty in ("azure", "urllib3", "uvicorn"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
    if wants_json(os.environ):
        use_json()


if __name__ == "__main__":
    main()
