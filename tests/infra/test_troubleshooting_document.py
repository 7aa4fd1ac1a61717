"""Every message that docs/troubleshooting.md quotes is one that the code writes."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "troubleshooting.md").read_text()
QUOTED = re.compile(r'"([^"]{12,})"')
_PLACES = ("cli", "functions", "shared", "local", "aks-serving/aks_serving")
_VARIES = "\0"


def quoted(document: str) -> list[str]:
    """What stands in quotes in tables."""
    return [text for line in document.splitlines() if line.startswith("| ") for text in QUOTED.findall(line)]


def strings_of(source: str) -> Iterator[str]:
    """The texts in a module, docstrings left out, with a mark for each part that varies."""
    nodes = list(ast.walk(ast.parse(source)))
    docstrings = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield re.sub(r"%[sdrg]", _VARIES, node.value)
        if isinstance(node, ast.JoinedStr):
            parts = (part.value if isinstance(part, ast.Constant) else _VARIES for part in node.values)
            yield "".join(str(part) for part in parts)


@cache
def written() -> tuple[str, ...]:
    files = (path for place in _PLACES for path in (ROOT / place).rglob("*.py"))
    return tuple(text for path in files for text in strings_of(path.read_text()))


def is_written(message: str) -> bool:
    """Whether one text of the code, or an error's text around another's, gives a message."""
    parts = [part.strip(" :") for part in message.split("...")]
    said = [part for part in parts if part]
    pattern = re.compile(".*".join(re.escape(part) for part in said), re.DOTALL)
    return any(pattern.search(text) for text in written())


def test_texts_are_found_as_they_are_written() -> None:
    source = 'raise E(f"the setting {name} is absent: "\n  "set it")\nlog.warning("%s waits", x)\n'
    assert f"the setting {_VARIES} is absent: set it" in list(strings_of(source))
    assert f"{_VARIES} waits" in list(strings_of(source))
    assert list(strings_of('"""It waits."""\n')) == []
    assert is_written("the functions app is misconfigured: ...")
    assert not is_written("the functions app is well configured: ...")
    assert not is_written("no plan was found yet ... the functions app is misconfigured")


def test_each_message_that_is_quoted_is_written_somewhere() -> None:
    found = quoted(DOCUMENT)
    assert len(found) > 25
    assert [message for message in found if not is_written(message)] == []
