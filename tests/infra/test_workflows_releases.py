"""The workflows: who goes before production, what starts them, and what their steps do.

The programs that a step runs are the test's own: they write down what they are asked, and answer as they are told.
"""

import json
import os
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from cli.deploy_package import packaged
from tests.infra.image import DOCKERFILE, read
from tests.infra.workflows import (
    NAMES,
    Programs,
    environment,
    jobs,
    may_sign_in,
    needs,
    run_step,
    scripts,
    starts,
    steps,
    text,
)
from tests.infra.workflows import read as workflow
from tests.unit.project.repository import ROOT, text_of, tracked_files

WORKFLOWS = [name.removesuffix(".yml") for name in NAMES]
OUTPUTS = set(re.findall(r"(?m)^output (\w+)", text_of("infra/bicep/main.bicep")))


def step(name: str, job: str, words: str) -> dict[str, Any]:
    """The one step of a job whose script has these words."""
    (found,) = (each for each in steps(jobs(text(name))[job]) if words in each.get("run", ""))
    return found


def on(name: str) -> dict[str, Any]:
    """What starts a workflow."""
    found: dict[str, Any] = workflow(text(name))[True]
    return found


def run_with(programs: Programs, script: str, cwd: Path, **variables: str) -> tuple[int, str]:
    """How a step ends, and what it says."""
    path = f"{programs.folder}{os.pathsep}{os.environ['PATH']}"
    ended = run_step(script, cwd, PATH=path, **variables)
    return ended.returncode, ended.stdout + ended.stderr


@pytest.mark.parametrize("name", ["serving", "functions", "infra"])
def test_what_goes_to_production_was_well_in_staging(name: str) -> None:
    found = jobs(text(name))
    into = {environment(job): each for each, job in found.items() if environment(job) in {"staging", "production"}}

    assert into == {"staging": "staging", "production": "production"}
    assert "staging" in needs(found, "production")
    makes = {each for each, job in found.items() if not environment(job)}
    assert needs(found, "staging") & makes, "what is deployed is made, or built, before"
    for job in found.values():
        assert "always()" not in job.get("if", "")
        assert not any(each.get("continue-on-error") for each in [job, *steps(job)])


def test_nothing_goes_to_an_environment_that_it_does_not_name() -> None:
    for name in WORKFLOWS:
        for job in jobs(text(name)).values():
            assert set(re.findall(r"slipway deploy (staging|production)", scripts(job))) <= {environment(job)}


def test_only_pushes_to_main_and_people_deploy() -> None:
    ours = "github.event_name == 'pull_request' && github.event.pull_request.head.repo.full_name == github.repository"
    for name in WORKFLOWS:
        assert "push" not in on(name) or on(name)["push"]["branches"] == ["main"]
        for job in jobs(text(name)).values():
            if "pull_request" not in on(name) or not may_sign_in(job):
                continue
            if environment(job).endswith("-plan"):
                assert job["if"] == ours
            else:
                assert job["if"] in {"github.event_name != 'pull_request'", "github.event_name == 'push'"}


@pytest.mark.parametrize(
    ("patterns", "path", "wanted"),
    [
        (["shared/**"], "shared/core/x.py", True),
        (["shared/**"], "shared2/x.py", False),
        (["cli/deploy*.py"], "cli/deploy_package.py", True),
        (["cli/deploy*.py"], "cli/deploy/x.py", False),
        (["a/**", "!a/b/**"], "a/b/c", False),
        (["**/x.py"], "x.py", True),
    ],
)
def test_patterns_of_paths_are_read_as_github_does(patterns: list[str], path: str, *, wanted: bool) -> None:
    assert starts(patterns, path) is wanted


def loaded() -> set[str]:
    """The files that the templates take their texts from."""
    return {
        str((ROOT / path).parent.joinpath(named).resolve().relative_to(ROOT))
        for path in tracked_files()
        if path.startswith("infra/bicep/") and path.endswith(".bicep")
        for named in re.findall(r"load(?:Text|Yaml|Json)Content\('([^']+)'", text_of(path))
    }


def copied() -> set[str]:
    """The files that the image is made of."""
    _, stages = read(DOCKERFILE.read_text())
    sources = {
        word
        for stage in stages
        for each in stage.instructions
        if each.name == "COPY" and not each.options
        for word in each.text.split()[:-1]
    }
    return {path for path in tracked_files() for source in sources if path == source or path.startswith(f"{source}/")}


@cache
def deployed(name: str) -> set[str]:
    """What a workflow deploys, and itself."""
    tracked = tracked_files()
    of: set[str] = set()
    match name:
        case "infra":
            of = loaded() | {path for path in tracked if path.startswith("infra/bicep/") and "README" not in path}
        case "serving":
            of = (
                copied()
                | {"aks-serving/Dockerfile"}
                | {each for each in tracked if each.startswith("aks-serving/k8s/")}
            )
        case "functions":
            of = {
                *packaged(ROOT),
                ".funcignore",
                "cli/deploy_package.py",
                "cli/deploy.py",
                "infra/bicep/eventgrid.bicep",
            }
        case "model":
            of = {"models/iris/model.onnx", "models/iris.policy.json"}
    called = {str(job["uses"]).removeprefix("./") for job in jobs(text(name)).values() if "uses" in job}
    itself = set() if name == "model" else {f".github/workflows/{name}.yml"}
    return of | called | itself


@pytest.mark.parametrize("name", ["infra", "serving", "functions", "model"])
def test_a_workflow_starts_where_something_that_it_deploys_has_changed(name: str) -> None:
    assert len(deployed(name)) > 1
    for event in {"push", "pull_request"} & on(name).keys():
        patterns = on(name)[event]["paths"]
        assert {path for path in deployed(name) if not starts(patterns, path)} == set()


def test_every_file_that_the_templates_load_is_found() -> None:
    assert {path.split("/")[1] for path in loaded()} >= {"observability"}
    assert all((ROOT / path).is_file() for path in loaded())


@pytest.mark.parametrize("name", WORKFLOWS)
def test_the_outputs_that_a_workflow_reads_are_put_out(name: str) -> None:
    run = "\n".join(scripts(job) for job in jobs(text(name)).values())
    named = set(re.findall(r"\.([A-Z][A-Z_]*)\.value", run))
    for listed in re.findall(r"for name in ([A-Z_ ]+); do", run):
        named |= set(listed.split())

    assert named <= OUTPUTS
    assert named or "properties.outputs" not in run


def test_every_check_runs_on_every_change_and_the_long_ones_by_night() -> None:
    found = jobs(text("ci"))
    everything = {each: scripts(job).splitlines() for each, job in found.items()}

    assert "./slipway test --coverage" in everything["test"]
    assert "./slipway test --long" in everything["long"]
    assert "paths" not in str(on("ci"))
    skips = next(each["env"]["SLIPWAY_SKIPS"] for each in steps(found["long"]) if "env" in each)
    assert not re.search(skips, "nginx promtool checkov SDKs node kubectl script")
    assert re.search(r"apt-get install .*\bnginx prometheus\b", scripts(found["long"]))
    assert on("ci")["schedule"]
    assert (found["test"]["if"], found["long"]["if"]) == tuple(
        f"github.event_name {sign} 'schedule'" for sign in ("!=", "==")
    )


def test_each_merge_of_models_is_dropped_from_where_the_one_before_it_ended() -> None:
    waiting = workflow(text("model"))["concurrency"]

    assert step("model", "drop", "models.sh drop")["env"]["BASE"] == "${{ github.event.before }}"
    assert step("model", "validate", "models.sh validate")["env"]["BASE"] == "${{ github.event.pull_request.base.sha }}"
    # One that waits would else be dropped for the next, which begins after it.
    assert (waiting["queue"], waiting["cancel-in-progress"]) == ("max", False)


@pytest.mark.parametrize(
    ("said", "code", "ends"),
    [
        ("", 0, 0),
        ("main.bicep(3,7) : Warning no-unused-params: Parameter is declared but never used.", 0, 1),
        ("main.bicep(3,7) : Error BCP057: The name does not exist.", 0, 1),
        ("", 1, 1),
    ],
)
@pytest.mark.parametrize("verb", ["build", "lint"])
def test_templates_are_built_without_a_warning(verb: str, said: str, code: int, ends: int, tmp_path: Path) -> None:
    az = Programs(tmp_path, "az")
    az.answer(f"bicep {verb} --file infra/bicep/eventgrid.bicep", code, said)

    ended, _ = run_with(az, step("infra", "build", "az bicep build")["run"], tmp_path, RUNNER_TEMP=str(tmp_path))

    assert ended == ends
    if ends == 0:
        done = [" ".join(call.split()[1:5]) for call in az.asked()]
        assert {
            f"bicep {each} --file infra/bicep/{of}.bicep" for each in ("build", "lint") for of in ("main", "eventgrid")
        } <= set(done)


@pytest.mark.parametrize(("code", "ends"), [("401", 0), ("200", 1), ("403", 1), ("500", 1), ("", 1)])
def test_an_app_that_answers_anybody_fails_its_release(code: str, ends: int, tmp_path: Path) -> None:
    curl = Programs(tmp_path, "curl")
    curl.answer("/api/models", 0, code)

    ended, _ = run_with(
        curl, step("functions-deploy", "deploy", "/api/health")["run"], tmp_path, FUNCTIONS_URL="https://app"
    )

    assert ended == ends
    assert [call.split()[-1] for call in curl.asked()] == ["https://app/api/health", "https://app/api/models"]


def test_an_app_that_is_not_well_fails_its_release(tmp_path: Path) -> None:
    curl = Programs(tmp_path, "curl")
    curl.answer("/api/health", 22)
    script = step("functions-deploy", "deploy", "/api/health")["run"]

    assert run_with(curl, script, tmp_path, FUNCTIONS_URL="https://app")[0] == 22
    assert "--fail" in curl.asked()[0].split()


def test_a_release_waits_for_a_function_that_there_is(tmp_path: Path) -> None:
    script = step("functions-deploy", "deploy", "function list")["run"]
    names = {
        found
        for path in tracked_files()
        if path.startswith("functions/")
        for found in re.findall(r'function_name\("(\w+)"\)', text_of(path))
    }
    programs = Programs(tmp_path, "az", "sleep", "seq")
    programs.answer("seq 40", 0, "1 2")
    variables = {"RESOURCE_GROUP": "rg", "FUNCTIONS_NAME": "func"}

    programs.answer("function list", 0, "\n".join(f"func/{name}" for name in names))
    assert run_with(programs, script, tmp_path, **variables)[0] == 0
    programs.answer("function list", 0, "func/another")
    ended, said = run_with(programs, script, tmp_path, **variables)
    assert (ended, "not listed" in said) == (1, True)
    assert sum(call.startswith("sleep") for call in programs.asked()) == 2


def test_a_release_of_the_app_deploys_then_has_drops_told_then_asks(tmp_path: Path) -> None:
    programs = Programs(tmp_path, "az", "curl", "slipway")
    programs.answer("sub show", 0, json.dumps({name: {"value": name.lower()} for name in OUTPUTS}))
    programs.answer("function list", 0, "functions_name/register_from_event")
    programs.answer("/api/models", 0, "401")
    variables = {"ENVIRONMENT": "staging", "GITHUB_ENV": str(tmp_path / "env")}
    found = [each["run"] for each in steps(jobs(text("functions-deploy"))["deploy"]) if "run" in each]
    (tmp_path / "env").touch()

    for script in found:
        kept = dict(line.split("=", 1) for line in (tmp_path / "env").read_text().splitlines())
        ended, said = run_with(programs, script, tmp_path, **variables, **kept)
        assert ended == 0, said

    did = [" ".join(call.split()[:5]) for call in programs.asked()]
    assert did[:4] == [
        "az deployment sub show --name",
        "az functionapp deployment source config-zip",
        "az functionapp function list --resource-group",
        "slipway deploy staging --only drops",
    ]
    assert [call.split()[-1] for call in programs.asked()[4:]] == [
        "functions_url/api/health",
        "functions_url/api/models",
    ]
    assert "--src app.zip --build-remote true" in programs.asked()[1]
