"""Examples in the documents are run, and the commands that they show exist."""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import typer

from cli.main import build_app
from shared.core.errors import InvalidInputError
from shared.registry.manifest import parse_manifest
from tests.unit.project.repository import ROOT, text_of, tracked_files
from tests.unit.project.tools import unknown

DOCUMENTS = [path for path in tracked_files() if path.endswith(".md")]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#\s]+)")
COMMAND = re.compile(r"(?<!-n )(?<![\w/.-])(?:\./)?slipway ([a-z][a-z-]*[^|#&;<>()\n]*)")
FILE = re.compile(r"(?: -k|--template-file|--parameters|--definition|sed \S+) @?([\w.-]+/[\w./$-]+)")
SECTION = re.compile(r"\]\(([^)#\s]*)#([^)\s]+)\)")
SETTING = re.compile(r"\bSLIPWAY_[A-Z0-9]+(?:_[A-Z0-9]+)*\b")


def python_examples(text: str) -> list[str]:
    return [body for language, body in BLOCK.findall(text) if language == "python"]


def code_in(text: str) -> Iterator[str]:
    """Lines of code, those that go on as one, and what stands between backticks."""
    for line in re.sub(r" ?\\\n +", " ", text).splitlines():
        if line.startswith(("    ", "$ ")):
            yield line
        else:
            yield from re.findall(r"`([^`]*)`", line)


def shown_code() -> Iterator[tuple[str, str]]:
    return ((path, line) for path in DOCUMENTS for line in code_in(text_of(path)))


@cache
def program() -> typer.core.TyperGroup:
    found = typer.main.get_command(build_app())
    assert isinstance(found, typer.core.TyperGroup)
    return found


def wrong_in(words: str) -> list[str]:
    """What of a command of ours is no command, or no option of it."""
    at: typer.core.TyperGroup | typer.core.TyperCommand = program()
    for word in words.split():
        if word.startswith("--"):
            given = word.partition("=")[0]
            found = at.get_command(typer.Context(at), "list") if at.name == "alerts" and isinstance(at, GROUP) else at
            options = {one for each in getattr(found, "params", ()) for one in (*each.opts, *each.secondary_opts)}
            if given not in options | {"--help"}:
                return [f"{at.name} {given}"]
        elif isinstance(at, GROUP):
            below = at.commands.get(word)
            if not isinstance(below, GROUP | typer.core.TyperCommand):
                return [f"{at.name} {word}"]
            at = below
    return []


GROUP = typer.core.TyperGroup


def test_examples_and_commands_are_found_where_they_stand() -> None:
    text = "Say `slipway up`, not slipway down:\n\n    ./slipway rollout \\\n      abort m\n\n```python\nx = 1\n```\n"
    assert python_examples(text) == ["x = 1\n"]
    assert [words for line in code_in(text) for words in COMMAND.findall(line)] == ["up", "rollout abort m"]


def test_what_a_command_does_not_take_is_found() -> None:
    assert wrong_in("rollout watch iris --every 5") == []
    assert wrong_in("rollout wach iris") == ["rollout wach"]
    assert wrong_in("push model.zip --modell iris") == ["push --modell"]
    assert wrong_in("alerts --all --json") == []
    shown = (
        "az keyvault certificate imprt --name a; cosign verify --certificate-ident b; az acr login --name c --query d"
    )
    assert list(unknown(shown)) == ["az keyvault certificate imprt", "cosign verify --certificate-ident"]
    assert list(unknown("kubectl -n slipway rollout undo deployment/a --to-revision 3 | az login")) == []


def test_python_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for path in DOCUMENTS:
        for example in python_examples(text_of(path)):
            exec(compile(example, path, "exec"), {"__name__": "example"})  # noqa: S102 - that is the test


def test_manifests_in_documents_are_good_ones() -> None:
    blocks = [
        (path, body) for path in DOCUMENTS for language, body in BLOCK.findall(text_of(path)) if language == "yaml"
    ]
    manifests = [(path, body) for path, body in blocks if body.startswith("# slipway.yaml")]
    assert len(manifests) >= 3
    for path, body in manifests:
        try:
            parse_manifest(body.encode())
        except InvalidInputError as error:
            pytest.fail(f"{path}: {error}")


def test_the_readme_shows_the_commands_of_a_new_user() -> None:
    shown = {words.split()[0] for line in code_in(text_of("README.md")) for words in COMMAND.findall(line)}
    assert {"demo", "test", "up"} <= shown


def test_a_command_that_a_document_shows_exists_with_its_options() -> None:
    shown = [(path, words) for path, line in shown_code() for words in COMMAND.findall(line)]
    assert len(shown) > 150
    assert "lock)" in text_of("slipway")
    # The script itself locks, and hands what follows `test` to pytest.
    wrong = [
        (path, found) for path, words in shown if words.split()[0] not in {"lock", "test"} for found in wrong_in(words)
    ]
    assert wrong == []


def test_commands_of_other_tools_that_documents_show_are_known_with_their_options() -> None:
    assert [(path, found) for path, line in shown_code() for found in unknown(line)] == []


def test_files_that_commands_in_documents_name_exist() -> None:
    shown = [(path, file) for path, line in shown_code() for file in FILE.findall(line)]
    assert len(shown) > 8
    stood_in = (("ENVIRONMENT", "staging"), ("$name", "models"))
    for path, file in shown:
        for word, one in stood_in:
            file = file.replace(word, one)  # noqa: PLW2901 - step by step
        assert (ROOT / file).exists(), f"{path} shows {file}"


def test_settings_that_documents_name_are_read_somewhere() -> None:
    read = {
        one
        for path in tracked_files()
        if not path.endswith(".md") and not path.startswith(("tests/", "docs/"))
        for one in SETTING.findall(text_of(path))
    }
    named = {(path, one) for path in DOCUMENTS for one in SETTING.findall(text_of(path))}
    assert len(named) > 60
    assert {(path, one) for path, one in named if one not in read} == set()


def test_links_within_the_repository_lead_somewhere() -> None:
    links = [(path, target) for path in DOCUMENTS for target in LINK.findall(text_of(path)) if "://" not in target]
    assert links
    assert [(path, target) for path, target in links if not (ROOT / path).parent.joinpath(target).exists()] == []


def sections(text: str) -> set[str]:
    """What a document's headings are called in links, as GitHub has it; of several alike the first alone."""
    plain = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    heads = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", head) for head in re.findall(r"^#+ (.*)$", plain, re.MULTILINE))
    return {re.sub(r"[^\w\- ]", "", head.strip().lower()).replace(" ", "-") for head in heads}


def test_links_to_a_section_lead_to_one() -> None:
    assert sections("# A [b](c.md), `D_e`!\n```\n# no\n```\n") == {"a-b-d_e"}
    links = [
        (path, target, section)
        for path in DOCUMENTS
        for target, section in SECTION.findall(text_of(path))
        if "://" not in target
    ]
    assert len(links) > 50
    wrong = [
        (path, target, section)
        for path, target, section in links
        if (found := (ROOT / path).parent / target if target else ROOT / path).suffix == ".md"
        and section not in sections(found.read_text("utf-8"))
    ]
    assert wrong == []
