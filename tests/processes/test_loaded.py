"""What is loaded by whom, seen in a fresh interpreter: a cold start pays only for what it uses."""

import subprocess
import sys

import pytest

from tests.support.tree import ROOT

HEAVY = ("azure.ai.ml", "azure.monitor", "numpy", "onnx", "onnxruntime", "opentelemetry", "pandas", "scipy", "sklearn")


def test_importing_the_app_loads_nothing_heavy() -> None:
    program = f"import sys, function_app\nprint(sorted(set({HEAVY!r}) & set(sys.modules)))"
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("shared.core.settings", ["azure"]),
        ("shared.store.open", ["azure", "sqlite3"]),
        ("shared.store.sqlite", ["azure"]),
        ("shared.store.cosmos", ["azure.cosmos", "azure.identity", "azure.storage"]),
        ("shared.store.blobs", ["azure.cosmos", "azure.identity", "azure.storage.queue"]),
        ("shared.store.queues", ["azure.cosmos", "azure.identity", "azure.storage.blob"]),
    ],
)
def test_importing_an_adapter_pulls_in_no_other_sdk(module: str, absent: list[str]) -> None:
    code = f"import sys, {module}; print([name for name in {absent!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_help_loads_nothing_heavy() -> None:
    program = (
        "import sys\nfrom cli.main import run\nrun(['--help'])\n"
        "print(sorted({'httpx', 'azure', 'rich', 'numpy', 'onnx', 'sklearn', 'uvicorn'} & set(sys.modules)))"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines()[-1] == "[]"
    assert "Exit codes" in ended.stdout


def test_importing_the_manifest_loads_no_yaml_parser() -> None:
    code = "import sys, shared.registry.manifest; sys.exit('yaml' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
