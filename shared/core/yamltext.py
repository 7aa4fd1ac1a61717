"""What is wrong with a YAML text, in words. Importing this module loads no YAML parser."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import yaml

_MAX_PROBLEM = 500
"""The characters told of what is wrong with a text, which may hold a name of any length."""


def yaml_problem(error: Exception, text: str) -> str:
    """What is wrong with a YAML text, with the line and the column, both from 1, where the library knows them."""
    import yaml  # noqa: PLC0415

    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        said = ", ".join(part for part in (error.context, error.problem) if part)
        return f"{yaml_place(mark)}: {said[:_MAX_PROBLEM]}" if mark else said[:_MAX_PROBLEM]
    if isinstance(error, yaml.reader.ReaderError):
        before = text[: error.position]
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        return f"line {line}, column {column}: the character {text[error.position]!a} may not stand there"
    return " ".join(str(error).split())[:_MAX_PROBLEM]


def yaml_place(mark: "yaml.Mark") -> str:
    """Where something stands in a text, both from 1."""
    return f"line {mark.line + 1}, column {mark.column + 1}"
