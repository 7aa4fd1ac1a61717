"""The model server's image: what its Dockerfile says, and that what it makes answers, where nothing can be written."""

import ast
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import tritonclient.grpc
import yaml

from tests.infra.image import DOCKERFILE, Built, Stage, build, context, read
from tests.infra.k8s import Resource, overlay, pod_of, settings, the
from tests.serving import models
from tests.serving.processes import Account
from tests.serving.processes import account as account  # noqa: PLC0414 - a fixture
from tests.support.waiting import eventually
from tests.unit.project.repository import ROOT

HADOLINT = Path(sys.executable).with_name("hadolint")
PACKAGES = "/app/lib/python3.13/site-packages/"
ONE = models.scaler(1.0)
# The whole file system is read-only but for the cache; and who runs the server has a number that nobody here has.
CONFINED = (
    *("unshare", "--map-root-user", "--mount", "sh", "-c"),
    'mount --bind "$0" "$0" && mount -o remount,bind,ro / && exec unshare -U --map-user=10001 --map-group=10001 "$@"',
)


@pytest.fixture(scope="module")
def text() -> str:
    return DOCKERFILE.read_text("utf-8")


@pytest.fixture(scope="module")
def final(text: str) -> Stage:
    return read(text)[1][-1]


def hadolint(text: str) -> str:
    ended = subprocess.run([HADOLINT, "-"], input=text, capture_output=True, text=True, timeout=60, check=False)
    return ended.stdout + ended.stderr


def unpinned(text: str) -> list[str]:
    """Base images that no digest pins, or that one pins which is not asked of the builder."""
    first, stages = read(text)
    asked = {each.text for each in first if each.name == "ARG"}
    names = {stage.name for stage in stages}
    pinned = re.compile(r"[a-z./]+:[\w.-]+@\$\{(\w+)\}")
    return [
        stage.base
        for stage in stages
        if stage.base not in names and ((found := pinned.fullmatch(stage.base)) is None or found[1] not in asked)
    ]


def shared_packages_of(package: Path) -> set[str]:
    """The packages of shared/ that a package imports, and those that these do, wherever an import stands."""
    found: set[Path] = set()
    waiting = set(package.rglob("*.py"))
    while waiting:
        path = waiting.pop()
        found.add(path)
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("shared."):
                names = [f"{node.module}.{alias.name}" for alias in node.names]
                modules = [Path(*name.split(".")) for name in (node.module or "", *names)]
                files = {ROOT / module.with_suffix(".py") for module in modules}
                waiting |= {file for file in files if file.is_file()} - found
    return {path.relative_to(ROOT).parts[1] for path in found if path.is_relative_to(ROOT / "shared")}


def container() -> Resource:
    (found,) = pod_of(the(overlay("production"), "Deployment", "slipway-serving"))["spec"]["containers"]
    made: Resource = found
    return made


def test_hadolint_finds_nothing(text: str) -> None:
    assert hadolint(text) == ""


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        ("RUN apt-get update && apt-get install -y curl", "DL3008"),
        ("RUN cd /app && ls", "DL3003"),
        ("ENTRYPOINT python -m aks_serving", "DL3025"),
        ("ADD shared /app/shared", "DL3020"),
    ],
)
def test_hadolint_finds_what_is_wrong(text: str, line: str, rule: str) -> None:
    assert rule in hadolint(f"{text}\n{line}\n")


def test_a_base_image_is_pinned_by_a_digest_that_the_builder_must_give(text: str) -> None:
    assert unpinned(text) == []
    assert unpinned(text.replace("@${PYTHON_DIGEST} AS build", " AS build")) == ["python:3.13-slim-trixie"]
    assert len(unpinned(text.replace("ARG PYTHON_DIGEST\n\n", "ARG PYTHON_DIGEST=sha256:0\n\n"))) == 2


def test_it_is_run_as_the_manifests_run_it(final: Stage) -> None:
    pod = pod_of(the(overlay("production"), "Deployment", "slipway-serving"))["spec"]["securityContext"]
    told = settings(overlay("production"))
    environment = final.pairs("ENV")

    assert final.texts("USER") == [f"{pod['runAsUser']}:{pod['runAsGroup']}"]
    assert final.texts("EXPOSE") == [" ".join(str(port["containerPort"]) for port in container()["ports"])]
    ours = {name: value for name, value in environment.items() if name.startswith("SLIPWAY_")}
    assert ours == {name: told[name] for name in ours}
    assert {mount["mountPath"] for mount in container()["volumeMounts"]} == {ours["SLIPWAY_CACHE_DIR"], "/tmp"}  # noqa: S108 - compared


def test_what_the_server_relies_on_is_said(final: Stage) -> None:
    environment = final.pairs("ENV")

    # Kubernetes sends what the image names.
    assert final.texts("STOPSIGNAL") == ["SIGTERM"]
    # Where it is started lies what it fetches: nothing of that may be imported, nor be written beside the packages.
    assert environment["PYTHONSAFEPATH"] == "1"
    assert environment["PYTHONDONTWRITEBYTECODE"] == "1"
    assert environment["PYTHONUNBUFFERED"] == "1"
    assert environment["PATH"].split(":")[0] == "/app/bin"
    assert final.texts("WORKDIR")[-1] == environment["SLIPWAY_CACHE_DIR"]


def test_packages_are_those_of_the_lock_by_their_hashes(text: str) -> None:
    (install,) = [line for line in read(text)[1][0].texts("RUN") if "pip" in line and " install " in line]
    assert {"--require-hashes", "--no-deps", "--only-binary"} <= {*install.split()}


def test_the_final_stage_installs_nothing_and_says_what_it_is(final: Stage) -> None:
    assert not re.search(r"pip\S* install|apt-get|curl|wget|gcc", " ".join(final.texts("RUN")))
    labels = final.pairs("LABEL")
    assert {"slipway.sbom", "slipway.lock", "org.opencontainers.image.base.digest"} <= labels.keys()
    assert labels["org.opencontainers.image.revision"] == "${REVISION}"
    assert labels["slipway.lock"] in " ".join(read(DOCKERFILE.read_text("utf-8"))[1][0].texts("COPY"))


def test_it_holds_the_server_and_what_it_imports_and_nothing_else(text: str) -> None:
    copied = [line.split() for stage in read(text)[1] for line in stage.texts("COPY")]
    ours = {source for source, target in copied if target.startswith(PACKAGES)}
    wanted = shared_packages_of(ROOT / "aks-serving" / "aks_serving")

    assert ours == {"aks-serving/aks_serving", "shared/__init__.py", *(f"shared/{name}" for name in wanted)}
    assert {"core", "telemetry"} < wanted < {path.name for path in (ROOT / "shared").iterdir()}
    assert {path.split("/")[0] for path in context()} == {"aks-serving", "shared"}


def test_it_has_the_python_of_the_repository(text: str) -> None:
    wanted = (ROOT / ".python-version").read_text("utf-8").strip()
    assert all(stage.base.startswith(f"python:{wanted}-") for stage in read(text)[1])
    assert set(re.findall(r"python(\d+\.\d+)/", text)) == {wanted}


def test_no_manifest_names_an_image_by_a_tag() -> None:
    for name in ("staging", "production"):
        images = yaml.safe_load((ROOT / f"aks-serving/k8s/overlays/{name}/kustomization.yaml").read_text())["images"]
        assert [image for image in images if "newTag" in image or "digest" not in image] == []


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return build(tmp_path_factory.mktemp("image"))


class Container:
    """A process as a container of the image would run it, and what it says."""

    def __init__(self, built: Built, log: Path, **given: str) -> None:
        free = {"SLIPWAY_BIND": "127.0.0.1", "SLIPWAY_PORT": "0", "SLIPWAY_GRPC_PORT": "0"}
        environment = built.environment() | free | given
        prefix = (*CONFINED, environment["SLIPWAY_CACHE_DIR"]) if can_confine() else ()
        with log.open("ab") as errors:
            self.process = subprocess.Popen(
                [*prefix, *built.entry_point()],
                cwd=environment["SLIPWAY_CACHE_DIR"],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=errors,
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline().decode()
        assert line.startswith("ready http://127.0.0.1:"), log.read_text()
        self.url = line.removeprefix("ready ").strip()
        self.grpc = self.process.stdout.readline().decode().removeprefix("grpc ").strip()

    def predict(self) -> httpx.Response:
        return httpx.post(f"{self.url}/predict", json={"features": [[1, 2]]}, timeout=20)

    def stop(self) -> int:
        """Stop it as Kubernetes does, by the signal that the image names."""
        (name,) = read(DOCKERFILE.read_text("utf-8"))[1][-1].texts("STOPSIGNAL")
        self.process.send_signal(signal.Signals[name])
        return self.process.wait(60)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


def can_confine() -> bool:
    """Whether this machine lets us make a file system that is read-only for one process."""
    if shutil.which("unshare") is None:
        return False
    # The folder is bound onto itself, in a namespace that ends with the process.
    probe = [*CONFINED, str(Path.cwd()), "true"]
    return subprocess.run(probe, capture_output=True, timeout=60, check=False).returncode == 0


@pytest.fixture
def running(built: Built, account: Account, tmp_path: Path) -> Iterator[Container]:
    # What lies where it is started is not what it imports.
    Path(built.environment()["SLIPWAY_CACHE_DIR"], "msgspec.py").write_text(
        "raise SystemExit('imported from the cache')"
    )
    account.put(ONE)
    account.publish(models.plan(1, models.route(1, ONE)))
    given = {"SLIPWAY_STORAGE_CONNECTION": account.connection, "SLIPWAY_POLL_S": "0.1", "SLIPWAY_DRAIN_S": "0.5"}
    made = Container(built, tmp_path / "log", SLIPWAY_WORKERS="2", **given)
    yield made
    made.close()


@pytest.mark.long
def test_all_of_it_can_be_imported_from_its_own_lock(built: Built) -> None:
    script = (
        "import importlib, pkgutil, sys, aks_serving\n"
        "for found in pkgutil.walk_packages(aks_serving.__path__, 'aks_serving.'):\n"
        "    if not found.name.endswith('__main__'):\n"
        "        importlib.import_module(found.name)\n"
        "files = (getattr(module, '__file__', None) for module in list(sys.modules.values()))\n"
        "print(*filter(None, files), sep='\\n')\n"
    )
    python = built.entry_point()[0]
    ended = subprocess.run(
        [python, "-c", script],
        env=built.environment(),
        cwd="/",
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert ended.returncode == 0, ended.stderr[-2000:]
    assert [path for path in ended.stdout.splitlines() if path.startswith(str(ROOT))] == []


@pytest.mark.long
def test_nothing_in_it_can_install_anything(built: Built) -> None:
    assert not list(built.folder.rglob("site-packages/pip"))
    assert not list(built.folder.rglob("ensurepip"))
    found = subprocess.run(
        [built.entry_point()[0], "-m", "pip", "--version"], env=built.environment(), capture_output=True, check=False
    )
    assert found.returncode != 0


@pytest.mark.long
def test_it_answers_drains_and_ends_where_nothing_but_the_cache_can_be_written(
    built: Built, running: Container, account: Account
) -> None:
    eventually(lambda: httpx.get(f"{running.url}/ready").status_code == 200, what="the server is ready")
    cache = built.environment()["SLIPWAY_CACHE_DIR"]
    before = {path: state for path, state in built.files().items() if not path.startswith(cache)}
    health = built.environment() | {"SLIPWAY_PORT": running.url.rsplit(":", 1)[1]}

    answer = running.predict()
    with tritonclient.grpc.InferenceServerClient(running.grpc) as client:
        knows_grpc = client.is_model_ready("churn")
    well = subprocess.run(built.health_check(), env=health, capture_output=True, timeout=60, check=False)
    code = running.stop()
    gone = subprocess.run(built.health_check(), env=health, capture_output=True, timeout=60, check=False)

    assert (answer.status_code, answer.json()["predictions"]) == (200, [[1.0, 2.0]])
    assert knows_grpc
    assert well.returncode == 0, well.stderr
    assert (code, gone.returncode) == (0, 1)
    assert sum(counts.requests for window in account.windows() for counts in window.versions.values()) == 1
    after = {path: state for path, state in built.files().items() if not path.startswith(cache)}
    assert after == before
    assert list(Path(cache).rglob("churn.json"))


@pytest.mark.long
def test_it_is_one_that_nobody_here_is_and_writes_nowhere_else(built: Built) -> None:
    if not can_confine():
        pytest.skip("this machine lets no process of ours have a read-only file system (unshare)")
    cache = built.environment()["SLIPWAY_CACHE_DIR"]
    script = f"id -u; touch '{cache}/written' && echo there; touch '{built.folder}/app/written' || echo refused"
    ended = subprocess.run([*CONFINED, cache, "sh", "-c", script], capture_output=True, text=True, check=False)

    assert ended.stdout.split() == ["10001", "there", "refused"]
