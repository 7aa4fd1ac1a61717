"""What an expression of PromQL asks for: its metrics, and which labels it wants of each.

Read by its grammar and not by how our metrics are called, so that a misspelt name is a name too. Labels are those of
matchers, and those of `by` and `on` over what they stand with.
"""

import re
from dataclasses import dataclass, field
from itertools import pairwise

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[a-zA-Z_:][\w:]*|\$\{?\w+\}?|\d[\w.]*|[^\s]')
_NAME = re.compile(r"[a-zA-Z_:][\w:]*")
_LISTS = {"by", "on", "without", "ignoring", "group_left", "group_right"}
_WORDS = {"and", "or", "unless", "bool", "offset", "inf", "nan", *_LISTS}
_ADDING = {"sum", "count", "min", "max", "avg"}
_VALUES = re.compile(r"label_values\((.+), (\w+)\)")
_LEGEND = re.compile(r"\{\{(\w+)\}\}")


@dataclass(slots=True)
class Asked:
    """One metric as an expression names it, and the labels that are wanted of it."""

    metric: str
    at: int
    labels: set[str] = field(default_factory=set)


def asked(expression: str) -> list[Asked]:
    """The metrics that an expression, or the query of a dashboard's variable, names."""
    if values := _VALUES.fullmatch(expression):
        found = asked(values[1])
        for one in found:
            one.labels.add(values[2])
        return found
    words = _TOKEN.findall(expression)
    ends = _ends(words)
    hidden = _hidden(words, ends)
    found = [Asked(word, at) for at, word in enumerate(words) if at not in hidden and _is_metric(words, at)]
    for one in found:
        if words[one.at + 1 : one.at + 2] == ["{"]:
            matchers = words[one.at + 1 : ends[one.at + 1]]
            one.labels.update(after for before, after in pairwise(matchers) if before in "{,")
    for at, word in enumerate(words):
        if word in {"by", "on"}:
            since, until = _body(words, ends, at)
            for one in found:
                if since <= one.at < until:
                    one.labels.update(_listed(words, ends, at))
    return found


def legend_misses(expression: str, legend: str, known: dict[str, set[str]]) -> set[str]:
    """What a legend would show of the series, and they do not have."""
    words = _TOKEN.findall(expression)
    grouped = [_listed(words, _ends(words), at) for at, word in enumerate(words) if word == "by"]
    if grouped:
        have = set().union(*grouped)
    elif words[0] in _ADDING:
        have = set()
    else:
        have = set().union(*(known[one.metric] for one in asked(expression)))
    return set(_LEGEND.findall(legend)) - have


def _is_metric(words: list[str], at: int) -> bool:
    """Whether the word there names a metric, and no function or operator."""
    after = words[at + 1] if at + 1 < len(words) else ""
    return bool(_NAME.fullmatch(words[at])) and words[at] not in _WORDS and after not in {"(", "by", "without"}


def _hidden(words: list[str], ends: dict[int, int]) -> set[int]:
    """Where matchers, ranges and lists of labels stand, in which no metric is named."""
    found: set[int] = set()
    for at, word in enumerate(words):
        if word in {"{", "["}:
            found.update(range(at, ends[at]))
        elif word in _LISTS:
            found.update(range(at, ends[at + 1]))
    return found


def _listed(words: list[str], ends: dict[int, int], at: int) -> set[str]:
    """The labels that the list after a word names."""
    return set(words[at + 2 : ends[at + 1]]) - {","}


def _ends(words: list[str]) -> dict[int, int]:
    """Where what opens at a place is closed."""
    found, opened = {}, []
    for at, word in enumerate(words):
        if word in {"(", "{", "["}:
            opened.append(at)
        elif word in {")", "}", "]"}:
            found[opened.pop()] = at
    return found


def _body(words: list[str], ends: dict[int, int], at: int) -> tuple[int, int]:
    """What the list at a at is about: what is added up before or after it, or all that it stands in."""
    if words[at] == "on":
        return 0, len(words)
    after = ends[at + 1] + 1
    if after < len(words) and words[after] == "(":
        return after, ends[after]
    (since,) = [start for start, end in ends.items() if end == at - 1]
    return since, at
