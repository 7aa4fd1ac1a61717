"""Searching versions: filters in the form of MLflow's, such as `metrics.accuracy >= 0.9 and tags.team = 'fraud'`.

A filter is comparisons joined by `and`. What it looks at:

- `metrics.<name>`: what validation measured, never what the manifest claims;
- `parameters.<name>` and `tags.<name>`: the manifest's;
- `state`, `version`, `author`, `run_id`, `git_commit`, `training_data_version`, `task`, `digest`, `alias`.

A name with other characters than letters, digits, `_`, `-`, `.` and `/` stands in double quotes or backticks. A value
is a number, a text in quotes (the quote itself is written twice), `true` or `false`. Numbers compare with all six
operators, the rest with `=` and `!=`. A version without the named metric, parameter or tag matches no comparison of it.
"""

import operator
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from enum import StrEnum

from shared.core.errors import InvalidInputError
from shared.registry.documents import ModelVersion, VersionState

MAX_FILTER_LENGTH = 2_000
MAX_COMPARISONS = 20

type Value = str | float | bool

_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}
_FOUND: dict[str, Callable[[ModelVersion], Value]] = {
    "state": lambda version: version.state.value,
    "version": lambda version: version.version,
    "author": lambda version: version.manifest.author,
    "run_id": lambda version: version.manifest.run_id,
    "git_commit": lambda version: version.manifest.git_commit,
    "training_data_version": lambda version: version.manifest.training_data_version,
    "task": lambda version: version.manifest.task.value,
    "digest": lambda version: version.digest,
}
_FIELDS = (*_FOUND, "alias")

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<operator><=|>=|!=|=|<|>)
      | (?P<text>'(?:[^']|'')*')
      | (?P<quoted>"(?:[^"]|"")*"|`[^`]*`)
      | (?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?![A-Za-z_]))
      | (?P<word>[A-Za-z_][A-Za-z0-9_./-]*)
    )""",
    re.VERBOSE,
)


class Group(StrEnum):
    """What has names of its own to look for."""

    METRICS = "metrics"
    PARAMETERS = "parameters"
    TAGS = "tags"


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One comparison: of a named thing of a group, or, without a group, of a field of the version."""

    group: Group | None
    name: str
    operator: str
    value: Value

    def holds(self, version: ModelVersion, aliases: Collection[str]) -> bool:
        """Whether it holds for a version that has these aliases."""
        if self.group is None and self.name == "alias":
            return (self.value in aliases) == (self.operator == "=")
        found = self._found(version)
        if found is None:
            return False
        if _is_number(found) and _is_number(self.value):
            return _OPERATORS[self.operator](float(found), float(self.value))
        same = type(found) is type(self.value) and found == self.value
        return same if self.operator == "=" else self.operator == "!=" and not same

    def _found(self, version: ModelVersion) -> Value | None:
        match self.group:
            case Group.METRICS:
                return version.validation.metrics.get(self.name) if version.validation else None
            case Group.PARAMETERS:
                return version.manifest.parameters.get(self.name)
            case Group.TAGS:
                return version.manifest.tags.get(self.name)
            case None:
                return _FOUND[self.name](version)


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Comparisons that must all hold."""

    comparisons: tuple[Comparison, ...]

    def matches(self, version: ModelVersion, aliases: Collection[str]) -> bool:
        """Whether a version that has these aliases is one of those looked for."""
        return all(comparison.holds(version, aliases) for comparison in self.comparisons)

    @property
    def asks_for_aliases(self) -> bool:
        """Whether it cannot be answered without the aliases."""
        return any(comparison.group is None and comparison.name == "alias" for comparison in self.comparisons)


def parse_filter(text: str) -> Filter:
    """Read a filter. Raises InvalidInputError saying what stands where, and what could stand there."""
    if len(text) > MAX_FILTER_LENGTH:
        raise InvalidInputError(f"the filter has {len(text)} characters: at most {MAX_FILTER_LENGTH} are read")
    tokens = _Tokens(text)
    comparisons = [_comparison(tokens)]
    while not tokens.is_at_end:
        joint = tokens.take("`and`", "word")
        if joint.text.lower() != "and":
            raise _unexpected(joint, "`and`: comparisons are joined by nothing else")
        comparisons.append(_comparison(tokens))
    if len(comparisons) > MAX_COMPARISONS:
        raise InvalidInputError(f"the filter has {len(comparisons)} comparisons: use at most {MAX_COMPARISONS}")
    return Filter(comparisons=tuple(comparisons))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Token:
    kind: str
    text: str
    place: int


class _Tokens:
    """The tokens of a filter, taken one by one."""

    def __init__(self, text: str) -> None:
        self._tokens = list(_tokens(text))
        self._next = 0

    @property
    def is_at_end(self) -> bool:
        return self._tokens[self._next].kind == "end"

    def take(self, wanted: str, *kinds: str) -> _Token:
        """The next token, if it is of one of these kinds."""
        token = self._tokens[self._next]
        if token.kind not in kinds:
            raise _unexpected(token, wanted)
        self._next += 1
        return token

    def take_adjoining(self, before: _Token) -> _Token:
        """The quoted name that follows right after a word that ends in a dot."""
        token = self.take("a name, as in `metrics.accuracy`", "quoted")
        if token.place != before.place + len(before.text):
            raise _unexpected(token, f"a name right after {before.text!r}")
        return token


def _tokens(text: str) -> Iterator[_Token]:
    place, end = 0, len(text.rstrip())
    while place < end:
        found = _TOKEN.match(text, place)
        if found is None or found.lastgroup is None:
            rest = text[place:].lstrip()
            hint = ": is its closing quote missing?" if rest[0] in "'\"`" else ""
            raise InvalidInputError(f"the filter has {rest[:20]!r} at character {end - len(rest.rstrip()) + 1}{hint}")
        yield _Token(kind=found.lastgroup, text=found[found.lastgroup], place=found.start(found.lastgroup))
        place = found.end()
    yield _Token(kind="end", text="", place=end)


def _comparison(tokens: _Tokens) -> Comparison:
    word = tokens.take("a field, as in `metrics.accuracy` or `state`", "word")
    group, name = _field(tokens, word)
    compared = tokens.take(f"one of {' '.join(_OPERATORS)}", "operator")
    value = tokens.take("a number, a text in single quotes, true or false", "number", "text", "quoted", "word")
    comparison = Comparison(group=group, name=name, operator=compared.text, value=_value(value))
    _check_types(comparison, compared, value)
    return comparison


def _field(tokens: _Tokens, word: _Token) -> tuple[Group | None, str]:
    first, dot, name = word.text.partition(".")
    if not dot:
        if first not in _FIELDS:
            raise _unexpected(word, f"one of {', '.join(_FIELDS)}, or metrics., parameters. or tags. and a name")
        return None, first
    if first not in list(Group):
        raise _unexpected(word, f"one of {', '.join(f'{group}.' for group in Group)} before the name")
    if not name:
        name = _unquoted(tokens.take_adjoining(word).text)
    return Group(first), name


def _value(token: _Token) -> Value:
    match token.kind:
        case "number":
            return float(token.text)
        case "text" | "quoted":
            return _unquoted(token.text)
        case _ if token.text.lower() in {"true", "false"}:
            return token.text.lower() == "true"
        case _:
            raise _unexpected(token, f"a value: write a text in quotes, as in '{token.text}'")


def _check_types(comparison: Comparison, compared: _Token, value: _Token) -> None:
    is_number = _is_number(comparison.value)
    if (comparison.group is Group.METRICS or comparison.name == "version") and not is_number:
        raise _unexpected(value, f"a number to compare {comparison.name} with")
    takes_text = comparison.group is Group.TAGS or (comparison.group is None and comparison.name != "version")
    if takes_text and not isinstance(comparison.value, str):
        raise _unexpected(value, f"a text in quotes to compare {comparison.name} with")
    if not is_number and comparison.operator not in {"=", "!="}:
        raise _unexpected(compared, "= or !=: what is no number has no order")
    if comparison.group is None and comparison.name == "state" and comparison.value not in list(VersionState):
        raise _unexpected(value, f"one of {', '.join(VersionState)}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _unquoted(text: str) -> str:
    quote = text[0]
    return text[1:-1].replace(quote * 2, quote)


def _unexpected(token: _Token, wanted: str) -> InvalidInputError:
    found = f"has {token.text[:40]!r} at character {token.place + 1}" if token.text else "ends"
    return InvalidInputError(f"the filter {found}, and wants {wanted}")
