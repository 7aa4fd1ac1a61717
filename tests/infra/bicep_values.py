"""What templates come to: a deployment's resources with their names and properties, for given parameters.

A small interpreter of the part of Bicep that infra/bicep is written in. What only Azure knows (an identity's principal,
a cluster's issuer) is a `Later`: text that says where it comes from. So is what a function gives that it does not know;
whether there is such a function is the lint's business.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from tree_sitter import Node

from tests.infra.bicep import ModuleCall, Resource, Template, elements, loop_names, string_parts, text_of

type Value = Any
"""What JSON holds, a Later, or a Made."""

SUBSCRIPTION = "/subscriptions/00000000-0000-0000-0000-000000000000"


class Later(str):
    """What is known once it is deployed, by where it comes from."""

    __slots__ = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Made:
    """A resource of a deployment."""

    symbol: str
    template: Path
    type: str
    version: str
    existing: bool
    name: str
    parent: "Made | None"
    scope: Value
    body: dict[str, Value]

    @property
    def full_name(self) -> str:
        """Its name below its parents'."""
        return f"{self.parent.full_name}/{self.name}" if self.parent else self.name

    @property
    def id(self) -> str:
        """An id that tells it from others of a deployment."""
        return f"{SUBSCRIPTION}/resourceGroups/rg/providers/{self.type}/{self.full_name}"

    @property
    def properties(self) -> dict[str, Value]:
        """Its properties."""
        found = self.body.get("properties", {})
        return found if isinstance(found, dict) else {}


def made_of(made: list[Made], kind: str) -> list[Made]:
    """The resources of a type that a deployment makes itself."""
    return [one for one in made if one.type == kind and not one.existing]


@dataclass(slots=True, kw_only=True)
class Deployment:
    """A template with the values of its parameters."""

    template: Template
    given: Mapping[str, Value]
    runtime: Mapping[tuple[str, str], Callable[[Made], str]] = field(default_factory=dict)
    """What Azure will answer, by a resource's type and the path of a property."""
    _found: dict[str, Value] = field(default_factory=dict)
    _children: dict[int, "Deployment"] = field(default_factory=dict)

    def resources(self) -> Iterator[Made]:
        """All resources of it and of its modules, those that others make left out."""
        for symbol in self.template.resources:
            found = self.symbol(symbol)
            for one in found if isinstance(found, list) else [found]:
                if isinstance(one, Made) and not one.existing:
                    yield one
        for symbol in self.template.modules:
            found = self.symbol(symbol)
            for child in found if isinstance(found, list) else [found]:
                if isinstance(child, Deployment):
                    yield from child.resources()

    def output(self, name: str) -> Value:
        """An output."""
        return self._value(self.template.outputs[name][1], {})

    def symbol(self, name: str) -> Value:
        """What a symbol of the template stands for."""
        if name not in self._found:
            self._found[name] = self._resolve(name)
        return self._found[name]

    def _resolve(self, name: str) -> Value:
        template = self.template
        if name in template.params:
            default = template.params[name].default
            if name in self.given:
                return self.given[name]
            return Later(f"param {name}") if default is None else self._value(default, {})
        if name in template.variables:
            return self._value(template.variables[name], {})
        if name in template.resources:
            return self._made(template.resources[name], template.resources[name].value, {})
        if name in template.modules:
            return self._called(template.modules[name], template.modules[name].value, {})
        raise KeyError(f"{template.path.name} names no {name}")

    def _made(self, resource: Resource, value: Node, bound: dict[str, Value]) -> Value:
        def make(body: Node, names: dict[str, Value]) -> Value:
            found = self._value(body, names)
            parent = found.get("parent")
            return Made(
                symbol=resource.symbol,
                template=self.template.path,
                type=resource.type,
                version=resource.version,
                existing=resource.existing,
                name=str(found.get("name", "")),
                parent=parent if isinstance(parent, Made) else None,
                scope=found.get("scope"),
                body=found,
            )

        return self._repeated(value, bound, make)

    def _called(self, module: ModuleCall, value: Node, bound: dict[str, Value]) -> Value:
        def call(body: Node, names: dict[str, Value]) -> Value:
            path = (self.template.path.parent / module.path).resolve()
            if not path.exists():
                return Later(module.symbol)
            given = self._value(body, names).get("params", {})
            return Deployment(template=_read(path), given=given, runtime=self.runtime)

        return self._repeated(value, bound, call)

    def _repeated(self, value: Node, bound: dict[str, Value], make: Callable[[Node, dict[str, Value]], Value]) -> Value:
        """What a body gives, over the loop and under the condition around it; None where the condition fails."""
        if value.type == "for_statement":
            over = self._value(value.named_children[1], bound)
            body, names = value.named_children[-1], loop_names(value)
            if isinstance(over, Later):
                return []
            if not isinstance(over, list):
                raise TypeError(f"{self.template.path.name}: a loop goes over {over!r:.80}, which is no array")
            return [
                self._repeated(body, bound | dict(zip(names, (one, number), strict=False)), make)
                for number, one in enumerate(over)
            ]
        if value.type == "if_statement":
            holds = self._value(value.named_children[0], bound)
            return self._repeated(value.named_children[-1], bound, make) if holds else None
        return make(value, bound)

    def _value(self, node: Node, bound: dict[str, Value]) -> Value:  # noqa: C901, PLR0911, PLR0912 - one case a form
        children = node.named_children
        match node.type:
            case "string":
                return self._string(node, bound)
            case "multiline_string":
                return text_of(node).removeprefix("'''").removesuffix("'''").removeprefix("\n")
            case "number":
                return int(text_of(node))
            case "boolean":
                return text_of(node) == "true"
            case "null":
                return None
            case "array":
                return [self._value(child, bound) for child in elements(node)]
            case "object":
                return dict(self._entry(child, bound) for child in children if child.type == "object_property")
            case "for_statement":
                return self._repeated(node, bound, self._value)
            case "parenthesized_expression" | "interpolation":
                return self._value(children[0], bound)
            case "identifier":
                name = text_of(node)
                return bound[name] if name in bound else self.symbol(name)
            case "member_expression":
                return self._member(node, bound)
            case "subscript_expression":
                return self._item(self._value(children[0], bound), self._value(children[1], bound))
            case "ternary_expression":
                return self._value(children[1 if self._value(children[0], bound) else 2], bound)
            case "call_expression":
                return self._call(node, bound)
            case "binary_expression":
                return self._binary(node, bound)
            case "unary_expression":
                found = self._value(children[-1], bound)
                return not found if text_of(node).startswith("!") else -found
            case "lambda_expression":
                name = text_of(children[0])
                return lambda given: self._value(children[1], bound | {name: given})
        return Later(text_of(node))

    def _entry(self, node: Node, bound: dict[str, Value]) -> tuple[str, Value]:
        key, value = node.named_children[0], node.named_children[-1]
        return str(self._value(key, bound)) if key.type == "string" else text_of(key), self._value(value, bound)

    def _string(self, node: Node, bound: dict[str, Value]) -> str:
        parts = [part if isinstance(part, str) else self._value(part, bound) for part in string_parts(node)]
        text = "".join(_text(part) for part in parts)
        return Later(text) if any(isinstance(part, Later) for part in parts) else text

    def _member(self, node: Node, bound: dict[str, Value]) -> Value:
        path: list[str] = []
        while node.type == "member_expression":
            path.insert(0, text_of(node.named_children[1]))
            node = node.named_children[0]
        if node.type == "lambda_expression":  # the grammar takes `a => a.b` for `(a => a).b`
            body = self._value(node, bound)
            return lambda given: self._along(body(given), path)
        if node.type == "ternary_expression":  # and `a ? b : c.d` for `(a ? b : c).d`
            first, one, other = node.named_children
            return (
                self._value(one, bound) if self._value(first, bound) else self._along(self._value(other, bound), path)
            )
        return self._along(self._value(node, bound), path)

    def _along(self, found: Value, path: Sequence[str]) -> Value:
        for number, name in enumerate(path):
            if isinstance(found, Made):
                return self._of_resource(found, ".".join(path[number:]))
            if isinstance(found, Deployment) and name == "outputs":
                return self._along(found.output(path[number + 1]), path[number + 2 :])
            found = self._item(found, name)
        return found

    def _item(self, found: Value, name: Value) -> Value:
        if isinstance(found, dict):
            return found.get(name)
        if isinstance(found, list) and isinstance(name, int):
            return found[name]
        return Later(f"{found}.{name}")

    def _of_resource(self, made: Made, path: str) -> Value:
        if path in {"id", "name", "type"}:
            return getattr(made, path)
        known = self.runtime.get((made.type, path))
        return known(made) if known else Later(f"{made.type}/{made.full_name}.{path}")

    def _call(self, node: Node, bound: dict[str, Value]) -> Value:
        function, *rest = node.named_children
        arguments = [self._value(part, bound) for part in (rest[0].named_children if rest else [])]
        if function.type == "identifier" and (known := _FUNCTIONS.get(text_of(function))):
            return known(*arguments)
        if function.type == "identifier" and text_of(function).startswith("load"):
            path = self.template.path.parent / arguments[0]
            return _LOADED.get(text_of(function), str)(path.read_text())
        return Later(text_of(node))

    def _binary(self, node: Node, bound: dict[str, Value]) -> Value:
        left, right = (self._value(part, bound) for part in (node.named_children[0], node.named_children[-1]))
        operator = text_of(node.child_by_field_name("operator") or node.children[1])
        known = _OPERATORS.get(operator)
        return known(left, right) if known else Later(text_of(node))


@cache
def _read(path: Path) -> Template:
    return Template.read(path)


def _text(value: Value) -> str:
    if isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) else str(value)


def _hashed(*parts: Value) -> str:
    return hashlib.sha256("\0".join(map(_text, parts)).encode()).hexdigest()


def _guid(*parts: Value) -> str:
    found = _hashed("guid", *parts)
    return f"{found[:8]}-{found[8:12]}-{found[12:16]}-{found[16:20]}-{found[20:32]}"


def _union(*parts: Value) -> Value:
    if all(isinstance(part, dict) for part in parts):
        return {key: value for part in parts for key, value in part.items()}
    found: list[Value] = []
    for part in parts:
        found.extend(one for one in part if one not in found)
    return found


_FUNCTIONS: dict[str, Callable[..., Value]] = {
    "any": lambda value: value,
    "concat": lambda *parts: "".join(parts) if isinstance(parts[0], str) else [one for part in parts for one in part],
    "contains": lambda where, what: what in where,
    "empty": lambda value: not value,
    "environment": lambda: {
        "suffixes": {"storage": "core.windows.net", "keyvaultDns": ".vault.azure.net"},
        "authentication": {"loginEndpoint": "https://login.microsoftonline.com/"},
    },
    "filter": lambda values, keep: [one for one in values if keep(one)],
    "first": lambda values: values[0],
    "flatten": lambda values: [one for part in values for one in part],
    "guid": _guid,
    "int": int,
    "join": lambda parts, between: between.join(parts),
    "json": json.loads,
    "last": lambda values: values[-1],
    "length": len,
    "map": lambda values, change: [change(one) for one in values],
    "max": lambda *values: max(values),
    "min": lambda *values: min(values),
    "range": lambda start, count: list(range(start, start + count)),
    "replace": lambda text, old, new: text.replace(old, new),
    "resourceGroup": lambda: {"id": f"{SUBSCRIPTION}/resourceGroups/rg", "name": "rg", "location": "westeurope"},
    "split": lambda text, between: text.split(between),
    "string": lambda value: _text(value) if isinstance(value, str | bool | int) else json.dumps(value),
    "subscription": lambda: {"id": SUBSCRIPTION, "subscriptionId": SUBSCRIPTION.rpartition("/")[2]},
    "subscriptionResourceId": lambda kind, *names: f"{SUBSCRIPTION}/providers/{kind}/{'/'.join(names)}",
    "take": lambda value, count: value[:count],
    "tenant": lambda: {"tenantId": "11111111-1111-1111-1111-111111111111"},
    "toLower": str.lower,
    "toUpper": str.upper,
    "union": _union,
    "uniqueString": lambda *parts: _hashed(*parts)[:13],
}
_LOADED: dict[str, Callable[[str], Value]] = {"loadJsonContent": json.loads, "loadYamlContent": yaml.safe_load}
_OPERATORS: dict[str, Callable[[Value, Value], Value]] = {
    "==": lambda left, right: left == right,
    "!=": lambda left, right: left != right,
    ">": lambda left, right: left > right,
    "<": lambda left, right: left < right,
    ">=": lambda left, right: left >= right,
    "<=": lambda left, right: left <= right,
    "&&": lambda left, right: left and right,
    "||": lambda left, right: left or right,
    "??": lambda left, right: right if left is None else left,
    "+": lambda left, right: left + right,
    "-": lambda left, right: left - right,
    "*": lambda left, right: left * right,
    "/": lambda left, right: left // right,
    "%": lambda left, right: left % right,
}
