"""What a query of Log Analytics names, and whether there is such a thing: tables, their columns, functions, spans.

A query is followed from pipe to pipe, so that a column is known only where it still is. Columns of Azure's tables are
those of Microsoft's reference of tables, as far as our queries need them; members of what `parse_json` gives are not
looked at.
"""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from shared.core.messages import Queue

ROOT = Path(__file__).parents[2]

_SPAN = "TimeGenerated AppRoleName Name DurationMs Success ItemCount OperationId Properties"
TABLES: dict[str, frozenset[str]] = {
    table: frozenset(columns.split())
    for table, columns in {
        "AppRequests": _SPAN,
        "AppDependencies": _SPAN,
        "AppTraces": "TimeGenerated AppRoleName Message OperationId Properties SeverityLevel",
        "CDBPartitionKeyRUConsumption": "TimeGenerated CollectionName DatabaseName PartitionKey RequestCharge",
        "ContainerLogV2": "TimeGenerated ContainerName LogLevel LogMessage LogSource PodName PodNamespace",
        "KubeEvents": "TimeGenerated Computer Count KubeEventType Message Name Namespace ObjectKind Reason",
        "KubeNodeInventory": "TimeGenerated Computer KubeletVersion Labels LastTransitionTimeReady Status",
        "KubePodInventory": "TimeGenerated Computer ContainerStatusReason Name Namespace PodRestartCount PodStatus",
        "Usage": "TimeGenerated DataType IsBillable Quantity",
    }.items()
}
_FUNCTIONS = """
    ago arg_max bin coalesce count countif dcount isnotempty isnotnull max min not parse_json percentile percentilew
    sqrt sum sumif take_any todouble toint tostring
"""
FUNCTIONS = frozenset(_FUNCTIONS.split())
_STEPS = frozenset({"where", "extend", "summarize", "project", "order", "take"})
_WORDS = frozenset({"and", "or", "by", "in", "has", "startswith", "asc", "desc", "true", "false"})
_STRING = re.compile(r'"[^"]*"')
_WORD = re.compile(r"(?<![\w.\"])[A-Za-z_]\w*")
_NAMED = re.compile(r"\bName (==|in|startswith) (\([^)]*\)|\"[^\"]*\")")


def unknown(text: str) -> list[str]:
    """What a query names that is not there, each with the step it stands in."""
    plain = "\n".join(line for line in text.splitlines() if not line.startswith("//"))
    return [*_unknown_names(_STRING.sub('""', plain)), *_unknown_spans(plain)]


def tables_of(text: str) -> set[str]:
    """The tables that a query asks."""
    return {
        word for line in text.splitlines() if not line.startswith("//") for word in _WORD.findall(line)
    } & TABLES.keys()


def _unknown_names(plain: str) -> Iterator[str]:
    *lets, query = [part.strip() for part in plain.split(";")]
    given = {words[1] for one in lets if (words := _WORD.findall(one))}
    source, *steps = [part.strip() for part in query.split("|")]
    named = _WORD.findall(source.removeprefix("union"))
    yield from (f"table {one}" for one in named if one not in TABLES)
    columns = {one for table in named for one in TABLES.get(table, ())}
    columns = {one for one in columns if all(one in TABLES.get(table, ()) for table in named)}
    for step in steps:
        how, _, rest = step.partition(" ")
        if how not in _STEPS:
            yield f"step {how}"
        for found in re.finditer(_WORD, rest):
            word, after = found[0], rest[found.end() :].lstrip()
            if after.startswith("(") and word not in _WORDS:
                if word not in FUNCTIONS:
                    yield f"function {word}"
            elif not _is_made(after) and word not in _WORDS | columns | given:
                yield f"column {word} in {how}"
        columns = _left(how, rest, columns)


def _is_made(after: str) -> bool:
    """Whether a word is given a value there."""
    return after.startswith("=") and after[1:2] not in {"=", "~"}


def _left(how: str, rest: str, columns: set[str]) -> set[str]:
    """The columns that there are after a step."""
    if how not in {"extend", "summarize", "project"}:
        return columns
    made = {found[0] for found in re.finditer(_WORD, rest) if _is_made(rest[found.end() :].lstrip())}
    if how == "extend":
        return columns | made
    parts = _parts(re.sub(r"\bby\b", ",", rest) if how == "summarize" else rest)
    for part in parts:
        inner = re.fullmatch(r"(\w+)\((.*)\)", part)
        if inner and inner[1] == "arg_max":
            made |= set(_WORD.findall(inner[2]))
        elif inner and inner[1] == "bin":
            made |= set(_WORD.findall(inner[2])[:1])
        elif re.fullmatch(r"\w+", part):
            made.add(part)
    return made


def _parts(text: str) -> list[str]:
    """What commas part, but for those within brackets."""
    found, depth, since = [], 0, 0
    for at, letter in enumerate(text):
        depth += (letter in "([") - (letter in ")]")
        if letter == "," and not depth:
            found.append(text[since:at])
            since = at + 1
    return [part.strip() for part in (*found, text[since:])]


def _unknown_spans(plain: str) -> Iterator[str]:
    if not tables_of(plain) & {"AppRequests", "AppDependencies"}:
        return
    whole, begun = span_names()
    for how, named in _NAMED.findall(plain):
        for text in re.findall(r'"([^"]*)"', named):
            if text not in (begun if how == "startswith" else whole):
                yield f"span {text!r}"


@cache
def span_names() -> tuple[set[str], set[str]]:
    """The names of spans that the code gives: those that are whole, and what others begin with."""
    whole: set[str] = set()
    begun: set[str] = set()
    for folder in ("functions", "shared/core", "aks-serving/aks_serving"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and node.args and _called(node.func) in {"span", "begin", "invocation"}:
                    match node.args[0]:
                        case ast.Constant(value=str(name)):
                            whole.add(name)
                        case ast.JoinedStr(values=[ast.Constant(value=str(name)), *_]):
                            begun.add(name)
    return whole | {f"process {queue}" for queue in Queue}, begun


def _called(func: ast.expr) -> str:
    return func.attr if isinstance(func, ast.Attribute) else func.id if isinstance(func, ast.Name) else ""
