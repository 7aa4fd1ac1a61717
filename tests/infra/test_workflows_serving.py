"""The workflow `serving`: pushed is what was built, looked through and signed; what a release changes, and undoes.

The programs that it runs are the test's own: they write down what they are asked, and answer as they are told.
"""

import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from aks_serving.http.access import is_open

from tests.infra.image import DOCKERFILE
from tests.infra.workflows import Programs, jobs, may_sign_in, needs, read, run_step, scripts, steps, text
from tests.unit.project.repository import ROOT, text_of

DIGEST = "sha256:" + "1" * 64
IMAGE = f"r.azurecr.io/slipway-serving@{DIGEST}"
SIGNER = "https://github.com/o/r/.github/workflows/serving.yml@refs/heads/main"
ISSUER = "https://token.actions.githubusercontent.com"
GITHUB = {"GITHUB_SERVER_URL": "https://github.com", "GITHUB_REPOSITORY": "o/r", "GITHUB_SHA": "c" * 40}


def step(name: str, job: str, words: str) -> dict[str, Any]:
    """The one step of a job whose script has these words."""
    (found,) = (each for each in steps(jobs(text(name))[job]) if words in each.get("run", ""))
    return found


def run_with(programs: Programs, script: str, cwd: Path, **variables: str) -> int:
    path = f"{programs.folder}{os.pathsep}{os.environ['PATH']}"
    return run_step(script, cwd, PATH=path, **GITHUB, **variables).returncode


def test_an_image_is_looked_through_before_it_is_pushed() -> None:
    found = jobs(text("serving"))
    looks = [each for each in steps(found["scan"]) if "trivy" in each.get("uses", "") and "severity" in each["with"]]

    assert needs(found, "publish") >= {"build", "scan"}
    assert "docker push" not in scripts(found["build"]) + scripts(found["scan"])
    (with_,) = (each["with"] for each in looks)
    assert {"HIGH", "CRITICAL"} <= set(with_["severity"].split(","))
    assert {"vuln", "secret"} <= set(with_["scanners"].split(","))
    assert with_["exit-code"] == "1"
    built = {each["with"]["image-ref"] for each in steps(found["scan"]) if "trivy" in each.get("uses", "")}
    assert built == {"slipway-serving:${{ github.sha }}"}
    assert [name for name, job in found.items() if may_sign_in(job)] == ["publish", "staging", "production"]


def test_the_arguments_of_the_build_are_those_that_the_dockerfile_takes() -> None:
    taken = set(re.findall(r"(?m)^ARG (\w+)", DOCKERFILE.read_text()))
    for name in ("serving", "ci"):
        run = "\n".join(scripts(job) for job in jobs(text(name)).values())
        given = set(re.findall(r'--build-arg "(\w+)=', run))
        assert given <= taken
        assert "PYTHON_DIGEST" in given
    assert given != taken
    assert set(re.findall(r'--build-arg "(\w+)=', scripts(jobs(text("serving"))["build"]))) == taken


@pytest.mark.parametrize(("held", "ends"), [("what was built", 0), ("something else", 1)])
def test_what_was_built_is_what_is_pushed(held: str, ends: int, tmp_path: Path) -> None:
    docker = Programs(tmp_path, "docker")
    (tmp_path / "image.tar").write_text("what was built")
    build = step("serving", "build", "docker build")["run"]
    output = tmp_path / "output"
    assert run_with(docker, build, tmp_path, PYTHON_DIGEST=DIGEST, GITHUB_OUTPUT=str(output)) == 0
    sha256 = hashlib.sha256(b"what was built").hexdigest()
    assert output.read_text() == f"sha256={sha256}\n"
    found = jobs(text("serving"))
    assert found["build"]["outputs"]["sha256"] == "${{ steps.build.outputs.sha256 }}"
    check = step("serving", "publish", "sha256sum")
    assert check["env"]["SHA256"] == "${{ needs.build.outputs.sha256 }}"

    (tmp_path / "image.tar").write_text(held)
    assert run_with(docker, check["run"], tmp_path, SHA256=sha256) == ends
    order = [str(each.get("run", "")) for each in steps(found["publish"])]
    assert order.index(check["run"]) < order.index(step("serving", "publish", "docker load")["run"])


def test_a_build_without_a_digest_of_its_base_fails(tmp_path: Path) -> None:
    docker = Programs(tmp_path, "docker")
    script = step("serving", "build", "docker build")["run"]

    assert run_with(docker, script, tmp_path, PYTHON_DIGEST="3.13", GITHUB_OUTPUT=str(tmp_path / "o")) == 1
    assert docker.asked() == []


def test_what_is_signed_is_what_was_pushed_and_its_list_is_attested(tmp_path: Path) -> None:
    programs = Programs(tmp_path, "az", "docker", "cosign")
    programs.answer("imagetools inspect r.azurecr.io/slipway-serving:cc", 0, DIGEST)
    variables = {"REGISTRY": "r.azurecr.io", "IMAGE": f"r.azurecr.io/slipway-serving:{'c' * 40}"}
    files = {name: str(tmp_path / name) for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
    sign = step("serving", "publish", "cosign sign")

    assert run_with(programs, step("serving", "publish", "docker push")["run"], tmp_path, **variables, **files) == 0
    assert run_with(programs, sign["run"], tmp_path, DIGEST=DIGEST, **variables, **files) == 0

    assert (tmp_path / "GITHUB_OUTPUT").read_text() == f"digest={DIGEST}\n"
    assert sign["env"] == {"DIGEST": "${{ steps.push.outputs.digest }}"}
    assert programs.asked()[-2:] == [
        f"cosign sign --yes {IMAGE}",
        f"cosign attest --yes --type cyclonedx --predicate sbom.json {IMAGE}",
    ]
    for job in ("staging", "production"):
        assert jobs(text("serving"))[job]["with"]["digest"] == "${{ needs.publish.outputs.digest }}"


@pytest.mark.parametrize("refused", ["", "cosign verify ", "cosign verify-attestation"])
def test_only_what_this_workflow_signed_is_applied(refused: str, tmp_path: Path) -> None:
    programs = Programs(tmp_path, "az", "cosign")
    if refused:
        programs.answer(refused, 1)
    job = jobs(text("serving-deploy"))["deploy"]
    verify = step("serving-deploy", "deploy", "cosign verify")

    assert run_with(programs, verify["run"], tmp_path, REGISTRY="r.azurecr.io", IMAGE=IMAGE) == (1 if refused else 0)

    assert job["env"]["IMAGE"].endswith("/slipway-serving@${{ inputs.digest }}")
    assert not {"if", "continue-on-error"} & verify.keys()
    order = [each.get("run", "") for each in steps(job)]
    assert order.index(verify["run"]) < order.index(step("serving-deploy", "deploy", "serving.sh apply")["run"])
    who = f"--certificate-identity {SIGNER} --certificate-oidc-issuer {ISSUER} {IMAGE}"
    wanted = ["az acr login --name r", f"cosign verify {who}", f"cosign verify-attestation --type cyclonedx {who}"]
    assert programs.asked() == wanted[: 2 if refused == "cosign verify " else 3]


@pytest.mark.parametrize(
    ("gitops", "changed", "made"),
    [
        ("true", "aks-serving/k8s/overlays/production/kustomization.yaml", "false"),
        ("true", "aks-serving/gitops/production/source.yaml", "false"),
        ("true", "shared/core/x.py", "true"),
        ("true", "aks-serving/Dockerfile", "true"),
        ("", "aks-serving/k8s/base/kustomization.yaml", "true"),  # applied from here, with the image
    ],
)
def test_the_digests_own_pull_request_makes_no_other_image(
    gitops: str, changed: str, made: str, tmp_path: Path
) -> None:
    look = step("serving", "changed", "git diff")
    output = tmp_path / "output"
    git = ("git", "-c", "user.name=t", "-c", "user.email=t@example.invalid", "-c", "commit.gpgsign=false")
    for name in ("README.md", changed):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
        if name == "README.md":
            subprocess.run([*git, "init", "--quiet"], cwd=tmp_path, check=True)
        subprocess.run([*git, "add", name], cwd=tmp_path, check=True)
        subprocess.run([*git, "commit", "--quiet", "--message", "m"], cwd=tmp_path, check=True)
    base = subprocess.check_output([*git, "rev-parse", "HEAD~1"], cwd=tmp_path, text=True).strip()
    variables = {"PATH": os.environ["PATH"], "GITHUB_OUTPUT": str(output), "GITOPS": gitops}

    for before in (base, ""):  # a person starts it: there is nothing before
        assert run_step(look["run"], tmp_path, BEFORE=before, **variables).returncode == 0
    assert output.read_text().splitlines() == [f"image={made}", "image=true"]
    assert look["env"] == {"GITOPS": "${{ vars.GITOPS }}", "BEFORE": "${{ github.event.before }}"}
    # A run that waited would be dropped for the next, which begins after it: each is in a group of its own.
    assert "vars.GITOPS == 'true' && github.sha" in read(text("serving"))["concurrency"]["group"]


class Cluster:
    """The script of releases, over a repository and a cluster that are not there."""

    def __init__(self, folder: Path) -> None:
        self.programs = Programs(folder, "kubectl", "kustomize")
        self.repository = folder / "repository"
        for overlay in ("staging", "production", "production-keda"):
            path = self.repository / "aks-serving/k8s/overlays" / overlay
            path.mkdir(parents=True)
            (path / "kustomization.yaml").touch()
        self.before = folder / "before"
        self.programs.answer("kubectl kustomize", 0, f"        image: {IMAGE}")
        self.programs.answer("kubectl diff", 1, "+ image")
        self.programs.answer("availableReplicas", 0, "shared 2")
        self.at("slipway-serving 7")

    def at(self, *revisions: str) -> None:
        """The cluster's Deployments, each with its revision."""
        self.programs.answer("get deployments", 0, "\n".join(revisions))

    def run(self, mode: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [ROOT / ".github/scripts/serving.sh", mode, self.before, *arguments],
            env={"PATH": f"{self.programs.folder}{os.pathsep}{os.environ['PATH']}"},
            cwd=self.repository,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def changes(self) -> list[str]:
        """What was asked of the cluster that changes it."""
        return [call for call in self.programs.asked() if re.search(r" apply | rollout undo ", call)]


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    return Cluster(tmp_path)


def test_a_release_shows_what_changes_changes_it_and_waits_for_every_slot(cluster: Cluster) -> None:
    cluster.at("slipway-serving 7", "slipway-serving-blue-digits 2")

    ended = cluster.run("apply", IMAGE, "production", "production-keda")

    assert ended.returncode == 0, ended.stderr
    asked = cluster.programs.asked()
    assert asked[0] == f"kustomize edit set image slipway-serving={IMAGE}"
    assert cluster.programs.folders()[0].relative_to(cluster.repository) == Path("aks-serving/k8s/overlays/production")
    assert asked[1] == "kubectl kustomize aks-serving/k8s/overlays/production-keda"
    verbs = [call.removeprefix("kubectl ").split(" -", 1)[0] for call in asked[3:6]]
    assert verbs == ["apply", "diff", "apply"]
    assert [call.split()[5] for call in asked if "rollout status" in call] == [
        "deployment/slipway-serving",
        "deployment/slipway-serving-blue-digits",
    ]
    assert cluster.before.read_text().split() == ["slipway-serving", "7", "slipway-serving-blue-digits", "2"]


@pytest.mark.parametrize(("said", "waits"), [("green", False), ("green 2", True), ("shared", True)])
def test_an_idle_slot_which_is_never_ready_is_not_waited_for(cluster: Cluster, said: str, *, waits: bool) -> None:
    cluster.at("slipway-serving 7", "slipway-serving-green-digits 2")
    cluster.programs.answer("deployment/slipway-serving-green-digits --output", 0, said)

    ended = cluster.run("apply", IMAGE, "production", "production")

    assert ended.returncode == 0, ended.stderr
    waited = [call.split()[5] for call in cluster.programs.asked() if "rollout status" in call]
    assert waited == ["deployment/slipway-serving", *["deployment/slipway-serving-green-digits"] * waits]
    assert ("green-digits is idle" in ended.stdout) is not waits


@pytest.mark.parametrize("overlay", ["staging", "production-nothing", "../production", ""])
def test_an_overlay_of_another_environment_or_of_none_is_refused(cluster: Cluster, overlay: str) -> None:
    ended = cluster.run("apply", IMAGE, "production", overlay)

    assert (ended.returncode, "made of production" in ended.stdout) == (1, True)
    assert cluster.programs.asked() == []


def test_an_image_that_is_set_in_an_environment_is_run_by_the_overlays_made_of_it(tmp_path: Path) -> None:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl is not installed, and the manifests are made with it")
    shutil.copytree(ROOT / "aks-serving" / "k8s", tmp_path / "k8s")
    overlays = tmp_path / "k8s" / "overlays"
    file = overlays / "production" / "kustomization.yaml"
    told = yaml.safe_load(file.read_text())
    (image,) = (each for each in told["images"] if each["name"] == "slipway-serving")
    image.update(newName=IMAGE.partition("@")[0], digest=DIGEST)
    file.write_text(yaml.safe_dump(told))

    for overlay in overlays.glob("production*"):
        made = subprocess.run([kubectl, "kustomize", overlay], capture_output=True, text=True, timeout=60, check=True)
        images = re.findall(r"image: (\S*/slipway-serving\S*)", made.stdout)
        assert set(images) == {IMAGE}, overlay.name


def test_an_overlay_that_runs_another_image_is_refused(cluster: Cluster) -> None:
    cluster.programs.answer("kubectl kustomize", 0, "        image: unset.azurecr.io/slipway-serving")

    assert cluster.run("apply", IMAGE, "staging", "staging").returncode == 1
    assert cluster.changes() == []


@pytest.mark.parametrize("fails", ["kustomize edit", "kubectl kustomize", "get deployments", "--kustomize", "diff"])
def test_a_release_that_fails_on_its_way_takes_nothing_back(cluster: Cluster, fails: str) -> None:
    cluster.programs.answer(fails, 2)
    assert cluster.run("apply", IMAGE, "staging", "staging").returncode != 0
    if fails == "get deployments":
        cluster.at("slipway-serving 7")

    ended = cluster.run("undo")

    assert ended.returncode == 0, ended.stderr
    assert not [call for call in cluster.changes() if "--filename" in call or "undo" in call]


def test_a_release_that_is_not_well_is_taken_back_to_where_it_was(cluster: Cluster) -> None:
    cluster.at("slipway-serving 7", "slipway-serving-blue-digits 2")
    cluster.programs.answer("rollout status", 1)
    assert cluster.run("apply", IMAGE, "staging", "staging").returncode == 1
    cluster.programs.answer("rollout status", 0)
    cluster.at("slipway-serving 9", "slipway-serving-blue-digits 2", "slipway-serving-new 1")

    ended = cluster.run("undo")

    assert ended.returncode == 0, ended.stderr
    assert cluster.changes()[2:] == [
        "kubectl --namespace slipway rollout undo deployment/slipway-serving --to-revision 7"
    ]
    assert "slipway-serving-blue-digits is at revision 2, as before" in ended.stdout
    seen = [call for call in cluster.programs.asked() if " wait " in call]
    assert len(seen) == 2, "the cluster has seen the change before its revision is asked for"


def test_a_first_release_has_nothing_to_go_back_to(cluster: Cluster) -> None:
    cluster.at()
    assert cluster.run("apply", IMAGE, "staging", "staging").returncode == 0

    ended = cluster.run("undo")

    assert (ended.returncode, "nothing is taken back" in ended.stdout) == (0, True)


def test_a_release_that_fails_is_taken_back_by_what_it_noted() -> None:
    apply, undo = (step("serving-deploy", "deploy", f"serving.sh {verb}") for verb in ("apply", "undo"))

    assert apply["env"] == {"OVERLAY": "${{ vars.OVERLAY || inputs.environment }}"}
    assert apply["run"].splitlines()[-1].endswith('apply "$RUNNER_TEMP/before" "$IMAGE" "$ENVIRONMENT" "$OVERLAY"')
    assert undo["run"].endswith('undo "$RUNNER_TEMP/before"')
    assert undo["if"] == f"failure() && steps.{apply['id']}.outcome != 'skipped'"
    assert steps(jobs(text("serving-deploy"))["deploy"])[-1] == undo


def test_a_release_is_asked_at_paths_that_the_gateway_routes() -> None:
    answers = step("serving-deploy", "deploy", "curl")
    asked = re.search(r"for path in ([\w/ ]+); do", answers["run"])
    (http,) = (
        route
        for route in yaml.safe_load_all(text_of("aks-serving/k8s/components/gateway/routes.yaml"))
        if route["kind"] == "HTTPRoute"
    )
    matches = [
        match for rule in http["spec"]["rules"] for match in rule["matches"] if match.get("method", "GET") == "GET"
    ]

    assert asked
    for path in asked[1].split():
        assert is_open(f"/{path}"), f"{path} may want a token"
        assert any(_routes(match["path"], f"/{path}") for match in matches), path


def _routes(wanted: dict[str, str], path: str) -> bool:
    value = wanted["value"]
    return path == value or (wanted["type"] == "PathPrefix" and path.startswith(f"{value}/"))
