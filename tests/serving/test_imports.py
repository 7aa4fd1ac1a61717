"""What the server's processes have loaded: each holds in memory all that it ever imported."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.serving import models
from tests.serving.processes import ROOT, Account, Launch, Server
from tests.support.waiting import eventually

ONE = models.scaler(1.0)


def _libraries(pid: int) -> set[str]:
    """The names of the libraries that a process has mapped, up to their first dot."""
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    paths = {line.split(maxsplit=5)[5] for line in lines if ".so" in line}
    return {Path(path).name.partition(".")[0] for path in paths}


def _served(account: Account, launch: Launch, **settings: str) -> Server:
    account.put(ONE)
    account.publish(models.plan(1, models.route(1, ONE)))
    server = launch(account.connection, **settings)
    eventually(server.ready, what="the server is ready")
    assert server.predict([[1.0, 2.0]]).status_code == 200
    return server


def test_the_parent_of_one_worker_has_loaded_nothing_that_it_does_not_need(account: Account, launch: Launch) -> None:
    server = _served(account, launch)
    parent, (worker,) = _libraries(server.process.pid), map(_libraries, server.workers())
    heavy = {"_multiarray_umath", "onnxruntime_pybind11_state", "_obstore", "libcrypto", "_decimal"}
    assert heavy & parent == set()
    assert heavy <= worker, "the test looks for what the worker has by these names"


def test_a_worker_has_loaded_nothing_for_what_is_not_asked_of_it(account: Account, launch: Launch) -> None:
    (worker,) = _served(account, launch).workers()
    unused = {"_rust": "signatures", "cygrpc": "gRPC", "_generator": "shares of rows", "csimdjson": "long bodies"}
    unused |= {"_pydantic_core": "documents of the control plane", "_ml_dtypes_ext": "BF16"}
    assert {why for library, why in unused.items() if library in _libraries(worker)} == set()


@pytest.mark.parametrize("given", ["nothing more", "override keys"])
def test_settings_are_read_without_cryptography_and_models_of_documents(given: str, tmp_path: Path) -> None:
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "SLIPWAY_BLOB_URL": "https://account.blob.core.windows.net",
        "SLIPWAY_CACHE_DIR": str(tmp_path),
    }
    if given == "override keys":
        keys = tmp_path / "keys"
        keys.write_text("00" * 32)
        environment["SLIPWAY_OVERRIDE_KEYS"] = str(keys)
    look = (
        "import sys, aks_serving.__main__ as server; server.Settings.from_env(); "
        "print(sorted({'pydantic', 'hashlib', 'random', 'fractions', 'shared.telemetry.window'} & set(sys.modules)))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", look], env=environment, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stdout) == (0, "[]\n"), ended.stderr


def test_a_worker_imports_no_pydantic() -> None:
    look = "import sys, aks_serving.worker; print([name for name in sys.modules if name.startswith('pydantic')])"
    ended = subprocess.run([sys.executable, "-c", look], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (0, "[]\n"), ended.stderr
