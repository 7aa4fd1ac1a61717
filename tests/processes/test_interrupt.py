"""Ctrl-C before a command has begun."""

import os
import signal
import subprocess
import sys
from pathlib import Path

_TYPER = """
import os, signal
os.kill(os.getpid(), signal.SIGINT)
"""


def test_an_interrupt_while_the_command_is_imported_leaves_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text(_TYPER)
    ran = subprocess.run(
        [sys.executable, "-P", "-m", "cli.main", "models"],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        # Whoever starts the tests in the background may have the signal ignored, in all that is started.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert ran.returncode == -signal.SIGINT
    assert ran.stderr == ""
