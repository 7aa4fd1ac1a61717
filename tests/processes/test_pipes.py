"""The command in a pipe."""

import subprocess
import sys


def test_a_reader_that_goes_away_leaves_no_traceback() -> None:
    program = "import sys\nfrom cli.main import main\nsys.argv = ['slipway', 'models', '--url', 'x', '--json']\nmain()"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        errors = process.stderr.read()
    assert errors == ""
    assert process.returncode == 141
