"""Routes of HTTP functions: ASP.NET route templates, as far as functions use them.

`{name}`, `{name:int}`, `{name?}` (last segment), `{*rest}` (last, any number of segments); text and parameters may
share a segment. Literal text matches in any case. Where several routes match a request, the most literal one wins, and
a constrained parameter wins over a free one, as in ASP.NET.
"""

import re
from dataclasses import dataclass
from urllib.parse import unquote

from local.host.errors import HostStartError

_PARAMETER = re.compile(r"\{(\*{0,2})([A-Za-z_][A-Za-z0-9_]*)(?::([A-Za-z]+))?(\?)?\}")
_CONSTRAINTS = {
    "int": r"[+-]?[0-9]{1,10}",
    "long": r"[+-]?[0-9]{1,19}",
    "bool": r"(?i:true|false)",
    "alpha": r"[A-Za-z]+",
    "guid": r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}",
}
_LITERAL, _CONSTRAINED, _FREE, _CATCH_ALL = range(4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A compiled route. `methods` is empty where any will do; the lower its `rank`, the sooner it wins."""

    template: str
    methods: frozenset[str]
    expression: re.Pattern[str]
    rank: tuple[int, ...]

    @classmethod
    def parse(cls, template: str, methods: frozenset[str], *, function: str) -> "Route":
        """Compile a template. Raises HostStartError naming the function."""
        expression, rank = "", []
        segments = [segment for segment in template.strip("/").split("/") if segment]
        for place, segment in enumerate(segments):
            text, kind = _segment(segment, template, function, last=place == len(segments) - 1)
            expression += text
            rank.append(kind)
        return cls(
            template=template,
            methods=methods,
            expression=re.compile(expression, re.DOTALL),
            rank=tuple(rank),
        )

    def match(self, method: str, path: str) -> dict[str, str] | None:
        """The parameters of a request, absent optional ones left out; None where the route is not for it."""
        if self.methods and method not in self.methods:
            return None
        found = self.expression.fullmatch(f"/{path}" if path else "")
        return None if found is None else {name: value for name, value in found.groupdict().items() if value}


def decoded_path(raw_path: bytes) -> str:
    """A request's path without its outer slashes, decoded but for an encoded slash, which separates no segments."""
    segments = raw_path.decode("latin-1").strip("/").split("/")
    return "/".join(unquote(segment).replace("/", "%2F") for segment in segments)


def _segment(segment: str, template: str, function: str, *, last: bool) -> tuple[str, int]:
    """A segment's expression, with its leading slash, and what kind it is."""
    parameters = list(_PARAMETER.finditer(segment))
    if any(brace in _PARAMETER.sub("", segment) for brace in "{}"):
        raise HostStartError.in_function(
            function, f"its route {template!r} has a part {segment!r} that the local host cannot read"
        )
    if not parameters:
        return f"/(?i:{re.escape(segment)})", _LITERAL
    if any(parameter[1] or parameter[4] for parameter in parameters):
        return _open_end(parameters, segment, template, function, last=last)
    text, end = "/", 0
    for parameter in parameters:
        text += f"(?i:{re.escape(segment[end : parameter.start()])})" if parameter.start() > end else ""
        text += f"(?P<{parameter[2]}>{_constraint(parameter, template, function)})"
        end = parameter.end()
    text += f"(?i:{re.escape(segment[end:])})" if end < len(segment) else ""
    return text, _CONSTRAINED if any(parameter[3] for parameter in parameters) else _FREE


def _open_end(
    parameters: list[re.Match[str]], segment: str, template: str, function: str, *, last: bool
) -> tuple[str, int]:
    parameter = parameters[0]
    if not last or parameter[0] != segment or (parameter[1] and parameter[4]):
        raise HostStartError.in_function(
            function, f"its route {template!r} may have {parameter[0]!r} only as the whole of its last part"
        )
    if parameter[1]:
        return f"(?:/(?P<{parameter[2]}>.*))?", _CATCH_ALL
    return f"(?:/(?P<{parameter[2]}>{_constraint(parameter, template, function)}))?", _FREE


def _constraint(parameter: re.Match[str], template: str, function: str) -> str:
    name = parameter[3]
    if name is None:
        return "[^/]+"
    if name.lower() not in _CONSTRAINTS:
        raise HostStartError.in_function(
            function, f"its route {template!r} has the constraint {name!r}; use one of {', '.join(_CONSTRAINTS)}"
        )
    return _CONSTRAINTS[name.lower()]
