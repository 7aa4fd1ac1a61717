"""What Bicep's compiler would refuse, beside what tests.infra.bicep_lint finds: order, parents, scopes, doubles.

The commonest of its errors is a name, a scope, a loop or a condition that asks for what only the deployment gives:
Azure wants to know all of a deployment's resources before it makes the first.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from tree_sitter import Node

from tests.infra.bicep import ModuleCall, Resource, Template, body_of, entries, every, line_of, literal, text_of, uses

_KNOWN_AT_THE_START = frozenset({"id", "name", "type", "apiVersion"})
_EARLY = ("name", "scope", "parent")

type Said = tuple[str, Node, str]
"""The rule, where, and what is wrong."""


def refused(template: Template) -> Iterator[Said]:
    """What is wrong with a template by itself."""
    yield from _doubles(template)
    yield from _circles(template)
    made: list[Resource | ModuleCall] = [*template.resources.values(), *template.modules.values()]
    for one in made:
        yield from _late(template, one)
        yield from _depends(template, one)
    for resource in template.resources.values():
        yield from _placed(template, resource)


def wrongly_scoped(template: Template, templates: Mapping[Path, Template]) -> Iterator[Said]:
    """Modules that would be made where they cannot be."""
    for module in template.modules.values():
        called = templates.get((template.path.parent / module.path).resolve())
        if called is None or "scope" in entries(body_of(module.value)):
            continue
        if scope_of(called) != scope_of(template):
            said = (
                f"{module.path} is for a {scope_of(called)}, and is called from a {scope_of(template)} without a scope"
            )
            yield "scopes", module.node, said


def scope_of(template: Template) -> str:
    """What a template is deployed to."""
    for node in template.root.named_children:
        if node.type == "target_scope_assignment":
            return literal(node.named_children[0])
    return "resourceGroup"


def _doubles(template: Template) -> Iterator[Said]:
    names: Counter[str] = Counter()
    for node in template.root.named_children:
        if node.type.endswith("_declaration") and node.type not in {"output_declaration", "metadata_declaration"}:
            name = text_of(next(part for part in node.named_children if part.type == "identifier"))
            names[name] += 1
            if names[name] == 2:
                yield "doubles", node, f"{name} is declared twice"
    for node in every(template.root):
        if node.type == "object":
            keys = Counter(
                text_of(one.named_children[0]) for one in node.named_children if one.type == "object_property"
            )
            for key, count in keys.items():
                if count > 1:
                    yield "doubles", node, f"{key} stands {count} times in one object"


def _circles(template: Template) -> Iterator[Said]:
    needs = {name: {use.name for use in uses(value)} for name, value in _values(template).items()}
    for name, value in _values(template).items():
        seen: set[str] = set()
        ahead = set(needs[name])
        while ahead:
            one = ahead.pop()
            if one == name:
                yield "circles", value, f"{name} needs itself"
                break
            if one not in seen:
                seen.add(one)
                ahead |= needs.get(one, set())


def _values(template: Template) -> dict[str, Node]:
    return {
        **template.variables,
        **{name: one.value for name, one in template.resources.items()},
        **{name: one.value for name, one in template.modules.items()},
    }


def _late(template: Template, one: Resource | ModuleCall) -> Iterator[Said]:
    """What must be known at the start, and is not."""
    body = entries(body_of(one.value))
    early = [body[key] for key in _EARLY if key in body]
    value = one.value
    while value.type in {"for_statement", "if_statement"}:
        early.append(value.named_children[1 if value.type == "for_statement" else 0])
        value = value.named_children[-1]
    for node in early:
        for asked in _asked_of_azure(template, node, frozenset()):
            yield "start", node, f"{one.symbol} wants to know {asked} before anything is deployed"


def _asked_of_azure(template: Template, node: Node, seen: frozenset[str]) -> Iterator[str]:
    for part in every(node):
        if part.type == "member_expression":
            base, name = part.named_children[0], text_of(part.named_children[1])
            symbol = text_of(base.named_children[0] if base.type == "subscript_expression" else base)
            if symbol in template.resources and name not in _KNOWN_AT_THE_START:
                yield text_of(part)
            if symbol in template.modules and name != "name":
                yield text_of(part)
    for use in uses(node):
        if use.name in template.variables and use.name not in seen:
            yield from _asked_of_azure(template, template.variables[use.name], seen | {use.name})


def _depends(template: Template, one: Resource | ModuleCall) -> Iterator[Said]:
    listed = entries(body_of(one.value)).get("dependsOn")
    for part in listed.named_children if listed is not None else []:
        if part.type != "comment" and text_of(part) not in {*template.resources, *template.modules}:
            yield "depends", part, f"{text_of(part)} is no resource or module"


def _placed(template: Template, resource: Resource) -> Iterator[Said]:
    """A child has a parent of the type that its own says, or a name with as many parts."""
    body = entries(body_of(resource.value))
    name = body.get("name")
    if name is None:
        yield "parents", resource.node, f"{resource.symbol} has no name"
        return
    depth = resource.type.count("/") - 1
    if "parent" in body:
        symbol = re.match(r"\w*", text_of(body["parent"]))
        parent = template.resources.get(symbol[0] if symbol else "")
        if parent is None or parent.type != resource.type.rpartition("/")[0]:
            yield "parents", resource.node, f"{resource.type} is no child of {text_of(body['parent'])}"
        depth = 0
    if text_of(name).count("/") != depth and "(" not in text_of(name) and name.type == "string":
        said = f"{resource.type} has a name of {text_of(name).count('/') + 1} parts, not of {depth + 1}"
        yield "parents", resource.node, f"line {line_of(name)}: {said}"
