"""Bicep templates as tests see them: what a file declares and which names its expressions use.

Guarantees only what the grammar tells (tree-sitter); what the names mean is tests.infra.bicep_lint's, and what they
come to is tests.infra.bicep_values'. Nothing here knows Slipway.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import tree_sitter_bicep
from tree_sitter import Language, Node, Parser


@dataclass(frozen=True, slots=True, kw_only=True)
class Param:
    """A parameter."""

    name: str
    type: str
    default: Node | None
    decorators: dict[str, list[Node]]
    node: Node


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """A resource, or one that another template makes (`existing`)."""

    symbol: str
    type: str
    version: str
    existing: bool
    value: Node
    """Its body: an object, or a loop or a condition over one."""
    node: Node


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleCall:
    """A module as it is called."""

    symbol: str
    path: str
    value: Node
    node: Node


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """A template."""

    path: Path
    root: Node
    params: dict[str, Param]
    variables: dict[str, Node]
    resources: dict[str, Resource]
    modules: dict[str, ModuleCall]
    outputs: dict[str, tuple[str, Node]]
    """The type and the value of each."""

    @classmethod
    def read(cls, path: Path) -> "Template":
        """Parse a file. What cannot be parsed is told by `faults`."""
        return cls.parse(path, path.read_bytes())

    @classmethod
    def parse(cls, path: Path, source: bytes) -> "Template":
        """Parse a file's content."""
        root = _parser().parse(source).root_node
        params: dict[str, Param] = {}
        variables: dict[str, Node] = {}
        resources: dict[str, Resource] = {}
        modules: dict[str, ModuleCall] = {}
        outputs: dict[str, tuple[str, Node]] = {}
        decorators: dict[str, list[Node]] = {}
        for node in root.named_children:
            if node.type == "decorators":
                decorators = dict(_decorator(one) for one in node.named_children)
                continue
            parts = [part for part in node.named_children if part.type not in {"comment", "type"}]
            name = text_of(parts[0]) if parts else ""
            match node.type:
                case "parameter_declaration":
                    default = parts[1] if len(parts) > 1 else None
                    params[name] = Param(name=name, type=_type(node), default=default, decorators=decorators, node=node)
                case "variable_declaration":
                    variables[name] = parts[1]
                case "resource_declaration":
                    kind, _, version = literal(parts[1]).partition("@")
                    existing = any(child.type == "existing" for child in node.children)
                    resources[name] = Resource(
                        symbol=name, type=kind, version=version, existing=existing, value=parts[2], node=node
                    )
                case "module_declaration":
                    modules[name] = ModuleCall(symbol=name, path=literal(parts[1]), value=parts[2], node=node)
                case "output_declaration":
                    outputs[name] = _type(node), parts[1]
            decorators = {}
        return cls(
            path=path,
            root=root,
            params=params,
            variables=variables,
            resources=resources,
            modules=modules,
            outputs=outputs,
        )

    @property
    def symbols(self) -> set[str]:
        """What an expression of it may name."""
        return {*self.params, *self.variables, *self.resources, *self.modules}


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """A name as an expression uses it."""

    name: str
    node: Node
    is_function: bool


@cache
def _parser() -> Parser:
    return Parser(Language(tree_sitter_bicep.language()))


def text_of(node: Node) -> str:
    """The source of a node."""
    return (node.text or b"").decode()


def line_of(node: Node) -> int:
    """Where it stands, from 1."""
    return int(node.start_point[0]) + 1


def every(node: Node) -> Iterator[Node]:
    """A node and all that is in it."""
    yield node
    for child in node.named_children:
        yield from every(child)


def faults(template: Template) -> list[Node]:
    """What the grammar could not make sense of."""

    def look(node: Node) -> Iterator[Node]:
        if node.type == "ERROR" or node.is_missing:
            yield node
        for child in node.children:
            yield from look(child)

    return list(look(template.root))


def string_parts(node: Node) -> list[str | Node]:
    """A string's texts, with its escapes undone, and the interpolations between them."""
    parts: list[str | Node] = []
    raw, begin, at = node.text or b"", node.start_byte, node.start_byte + 1
    for part in node.named_children:
        # The grammar has no node for an escaped dollar sign.
        parts.append(raw[at - begin : part.start_byte - begin].decode().replace("\\", ""))
        parts.append(part if part.type == "interpolation" else _unescaped(part))
        at = part.end_byte
    parts.append(raw[at - begin : -1].decode().replace("\\", ""))
    return [part for part in parts if part != ""]


def _unescaped(part: Node) -> str:
    found = text_of(part)
    if part.type != "escape_sequence":
        return found
    if found.startswith("\\u{"):
        return chr(int(found[3:-1], 16))
    return {"\\n": "\n", "\\r": "\r", "\\t": "\t"}.get(found, found[1:])


def literal(node: Node) -> str:
    """The text of a string without interpolations; of one with them, with their source in their place."""
    return "".join(part if isinstance(part, str) else text_of(part) for part in string_parts(node))


def is_literal(node: Node) -> bool:
    """Whether it is a string without interpolations."""
    return node.type == "string" and all(part.type != "interpolation" for part in node.named_children)


def body_of(value: Node) -> Node:
    """The object that a resource, a module or a loop is about."""
    while value.type in {"for_statement", "if_statement"}:
        value = value.named_children[-1]
    return value


def entries(node: Node) -> dict[str, Node]:
    """An object's properties: names as they are written, an interpolated one with its source in its place."""
    found = {}
    for one in node.named_children:
        if one.type == "object_property":
            key, value = one.named_children[0], one.named_children[-1]
            found[literal(key) if key.type == "string" else text_of(key)] = value
    return found


def elements(array: Node) -> list[Node]:
    """An array's elements.

    The grammar takes `[f().x]` for the two elements `f` and `().x`: what stands together without a space is read anew.
    """
    runs: list[list[Node]] = []
    for child in array.named_children:
        if child.type == "comment":
            continue
        if runs and runs[-1][-1].end_byte == child.start_byte:
            runs[-1].append(child)
        else:
            runs.append([child])
    return [run[0] if len(run) == 1 else _read_anew(run) for run in runs]


def _read_anew(run: list[Node]) -> Node:
    text = b"".join(node.text or b"" for node in run)
    before = b"\n" * (line_of(run[0]) - 1)
    return _parser().parse(before + b"var one = " + text + b"\n").root_node.named_children[0].named_children[1]


def loop_names(loop: Node) -> list[str]:
    """The names that a loop binds: of what it goes over, and of its number."""
    first = loop.named_children[0]
    if first.type == "for_loop_parameters":
        return [text_of(part) for part in first.named_children]
    return [text_of(first)]


def uses(node: Node, bound: frozenset[str] = frozenset()) -> Iterator[Use]:  # noqa: C901, PLR0912 - one case a form
    """The names that an expression uses, but for those that it binds itself."""
    match node.type:
        case "identifier" if text_of(node) not in bound:
            yield Use(name=text_of(node), node=node, is_function=False)
        case "object_property":
            key, *rest = node.named_children
            for part in rest if key.type == "identifier" else (key, *rest):
                yield from uses(part, bound)
        case "call_expression":
            function, arguments = node.named_children[0], node.named_children[1:]
            if function.type == "identifier":
                yield Use(name=text_of(function), node=function, is_function=True)
            else:
                yield from uses(function, bound)
            for part in arguments:
                yield from uses(part, bound)
        case "for_statement":
            yield from uses(node.named_children[1], bound)
            inner = bound | set(loop_names(node))
            for part in node.named_children[2:]:
                yield from uses(part, inner)
        case "array":
            for part in elements(node):
                yield from uses(part, bound)
        case "lambda_expression":
            binder, body = node.named_children
            yield from uses(body, bound | {text_of(binder)})
        case _:
            for part in node.named_children:
                yield from uses(part, bound)


def _decorator(node: Node) -> tuple[str, list[Node]]:
    call = node.named_children[0]
    function, arguments = call.named_children[0], call.named_children[1:]
    return text_of(function), list(arguments[0].named_children) if arguments else []


def _type(node: Node) -> str:
    return next((text_of(part) for part in node.named_children if part.type == "type"), "")
