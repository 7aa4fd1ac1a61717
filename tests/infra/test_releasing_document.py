"""docs/releasing.md, "Once, in GitHub": its commands, run with an `az` and a `gh` of the test's, make what is used."""

import json
import os
import re

import pytest

from tests.infra.workflows import NAMES, Programs, environment, jobs, may_sign_in, run_step, text
from tests.unit.project.repository import text_of

VALUES = {"OWNER/REPOSITORY": "o/r", "approver=LOGIN": "approver=somebody"}


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What the commands ask, in order."""
    folder = tmp_path_factory.mktemp("once")
    section = (
        text_of("docs/releasing.md").partition("## Once, in GitHub")[2].partition("Variables of the repository:")[0]
    )
    script = "\n".join(line[4:] for line in section.splitlines() if line.startswith("    "))
    for word, value in VALUES.items():
        script = script.replace(word, value)
    for name in ("staging", "production"):
        script = script.replace(f"{name}=SUBSCRIPTION_ID", f"{name}=sub-{name}")
    programs = Programs(folder, "az", "gh")
    programs.answer("--query clientId", 0, "client")
    programs.answer("--query principalId", 0, "principal")
    programs.answer("account show", 0, "tenant")
    programs.answer("acr show --name r ", 0, "/the/registry")
    programs.answer("REGISTRY_LOGIN_SERVER", 0, "r.azurecr.io")
    programs.answer("users/somebody", 0, "7")
    ended = run_step(script, folder, PATH=f"{folder}{os.pathsep}{os.environ['PATH']}")
    assert ended.returncode == 0, ended.stderr
    return programs.asked()


def used() -> set[str]:
    """The environments that workflows sign in by."""
    found = set()
    for name in NAMES:
        for job in jobs(text(name.removesuffix(".yml"))).values():
            named = environment(job)
            if may_sign_in(job) and "inputs." not in named:
                matrix = job.get("strategy", {}).get("matrix", {}).get("environment", [""])
                found |= {named.replace("${{ matrix.environment }}", each) for each in matrix}
    return found


def test_every_environment_has_an_identity_that_trusts_it_and_its_variables(asked: list[str]) -> None:
    for name in used():
        wanted = "production" if not name.startswith("staging") else "staging"
        (trust,) = (call for call in asked if call.endswith(f"--subject repo:o/r:environment:{name}"))
        assert f"--identity-name id-slipway-{name} " in trust
        assert "--issuer https://token.actions.githubusercontent.com --audiences api://AzureADTokenExchange" in trust
        told = {call.split()[3]: call.split()[-1] for call in asked if f"--env {name} " in call}
        assert told == {
            "AZURE_CLIENT_ID": "client",
            "AZURE_TENANT_ID": "tenant",
            "AZURE_SUBSCRIPTION_ID": f"sub-{wanted}",
        }
    assert {call.split()[-1].split(":")[-1] for call in asked if "federated-credential" in call} == used()


def test_only_main_deploys_and_somebody_approves_production(asked: list[str]) -> None:
    main = {call.split("/environments/")[1].split("/")[0] for call in asked if call.endswith("--field name=main")}
    assert main == {name for name in used() if not name.endswith("-plan")}
    approved = {call.split("/environments/")[1].split()[0]: call for call in asked if "reviewers[][id]=7" in call}
    assert approved.keys() == {"production"}
    assert "prevent_self_review=true" in approved["production"]


def test_each_identity_is_given_what_the_table_says_and_no_more(asked: list[str]) -> None:
    given = [
        (match[1], match[2])
        for call in asked
        if (match := re.search(r"role assignment create .*--role (.+?) --scope (\S+)", call))
    ]

    assert sorted(given) == sorted(
        [
            *(("Slipway Plan", f"/subscriptions/sub-{name}") for name in ("staging", "production")),
            *(("Slipway Deploy", f"/subscriptions/sub-{name}") for name in ("staging", "production")),
            *(
                (role, f"/subscriptions/sub-{name}/resourceGroups/rg-slipway-{name}")
                for name in ("staging", "production")
                for role in ("Contributor", "Role Based Access Control Administrator")
            ),
            ("Slipway Models", "/subscriptions/sub-production"),
            ("AcrPush", "/the/registry"),
        ]
    )
    conditions = [call.partition("--condition ")[2] for call in asked if "Control Administrator" in call]
    assert all(condition.count("GuidNotEquals") == 2 for condition in conditions)
    members = [(call.split()[6], call.split()[-1]) for call in asked if "group member add" in call]
    assert members == [("slipway-cluster-admins", "principal")] * 2 + [("slipway-publishers", "principal")]


def test_the_roles_are_ones_that_azure_can_read_and_who_plans_writes_nothing(asked: list[str]) -> None:
    roles = [json.loads(call.partition("--role-definition ")[2]) for call in asked if "role definition create" in call]
    may = {role["Name"]: set(role["Actions"]) for role in roles}

    assert may.keys() == {"Slipway Plan", "Slipway Deploy", "Slipway Models"}
    assert all(
        role["AssignableScopes"] == ["/subscriptions/sub-production", "/subscriptions/sub-staging"] for role in roles
    )
    assert all(action.endswith(("/read", "/whatIf/action", "/validate/action")) for action in may["Slipway Plan"])
    assert not [
        action for actions in may.values() for action in actions if action in {"*", "Microsoft.Authorization/*"}
    ]


def test_the_variables_that_workflows_read_are_all_told_of() -> None:
    read = {name for each in NAMES for name in re.findall(r"vars\.(\w+)", text(each.removesuffix(".yml")))}
    document = text_of("docs/releasing.md")
    assert {name for name in read if f"`{name}`" not in document} == set()
