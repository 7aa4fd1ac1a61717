"""Examples in the documents are run, and the commands that they show exist."""

import re
import shlex
from collections.abc import Iterator

import pytest

from cli.main import run
from shared.core.errors import InvalidInputError
from shared.registry.manifest import parse_manifest
from tests.unit.project.repository import ROOT, text_of, tracked_files

DOCUMENTS = [path for path in tracked_files() if path.endswith(".md")]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#\s]+)")
COMMAND = re.compile(r"(?:^|[\s`(])(?:\./)?slipway ([a-z][a-z-]*(?: [a-z]+)?)", re.MULTILINE)


def python_examples(text: str) -> list[str]:
    return [body for language, body in BLOCK.findall(text) if language == "python"]


def commands_in(text: str) -> Iterator[str]:
    for line in text.splitlines():
        code = line if line.startswith(("    ", "$ ")) else " ".join(re.findall(r"`([^`]*)`", line))
        yield from COMMAND.findall(code)


def shown_commands() -> set[tuple[str, str]]:
    return {(path, words) for path in DOCUMENTS for words in commands_in(text_of(path))}


def test_examples_and_commands_are_found_where_they_stand() -> None:
    text = "Say `slipway up`, not slipway down:\n\n    ./slipway rollout abort m\n\n```python\nx = 1\n```\n"
    assert python_examples(text) == ["x = 1\n"]
    assert list(commands_in(text)) == ["up", "rollout abort"]


def test_python_examples_run() -> None:
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
    shown = {words.split()[0] for path, words in shown_commands() if path == "README.md"}
    assert {"demo", "test", "up"} <= shown


@pytest.mark.parametrize(("path", "words"), sorted(shown_commands()))
def test_a_command_that_a_document_shows_exists(path: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    first, *_ = shlex.split(words)
    if first == "lock":
        assert "lock)" in text_of("slipway")
        return
    assert run([first, "--help"]) == 0, f"{path} shows `slipway {words}`"
    assert "Usage: slipway" in capsys.readouterr().out


def test_links_within_the_repository_lead_somewhere() -> None:
    links = [(path, target) for path in DOCUMENTS for target in LINK.findall(text_of(path)) if "://" not in target]
    assert links
    assert [(path, target) for path, target in links if not (ROOT / path).parent.joinpath(target).exists()] == []
