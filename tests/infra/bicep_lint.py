"""A lint of Bicep templates, where the compiler cannot be had: what would fail or leak in Azure is a finding here.

Rules about a folder of templates alone. What the code of Slipway and its templates owe each other is
tests.infra.bicep_duties'. A finding says where, what was found and what was wanted.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pycep import BicepParser
from tree_sitter import Node

from tests.infra.bicep import (
    ModuleCall,
    Param,
    Template,
    body_of,
    entries,
    every,
    faults,
    is_literal,
    line_of,
    literal,
    text_of,
    uses,
)
from tests.infra.bicep_compile import refused, wrongly_scoped
from tests.infra.bicep_known import API_VERSIONS, FORBIDDEN_ON_FLEX, FUNCTIONS, ROLES

_GUID = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")
_SECRET_TEXT = re.compile(
    r"AccountKey=|SharedAccess|InstrumentationKey=|[?&]sig=|password\s*=|-----BEGIN|whsec_|[A-Za-z0-9+/]{42,}={1,2}(?![A-Za-z0-9=])|[A-Za-z0-9+]{48,}",
    re.IGNORECASE,
)
_SECRET_NAME = re.compile(
    r"(?:connectionStrings?|primaryKey|secondaryKey|primaryMasterKey|accountKey|sharedKey|instrumentationKey|password"
    r"|adminCredentials|kubeconfigs?|clientSecret|sasToken|accessKeys?)$",
    re.IGNORECASE,
)
_LISTS = re.compile(r"(?:list[A-Z]\w*|getSecret|reference)$")
_SECRET_OUTPUT = re.compile(r"key|secret|password|connection|credential|sas(?![a-z])", re.IGNORECASE)
CONNECTION_STRING_USER = ("functions.bicep", "insights.properties.ConnectionString")
"""The one connection string that a template may ask for, and the template that may. Application Insights cannot be
addressed in another way, and with its local authentication off it is an address and a name: who sends needs a role."""
_TYPES = {"string": str, "int": int, "bool": bool, "array": list, "object": dict}
_FORMS = {"string": "string", "number": "int", "boolean": "bool", "array": "array", "object": "object"}


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Finding:
    """Something that is not as it should be."""

    rule: str
    where: str
    said: str

    def __str__(self) -> str:
        return f"{self.where}: {self.said} [{self.rule}]"


def differs(rule: str, where: str, what: str, found: object, wanted: object) -> Iterator[Finding]:
    """A finding where something is not what is wanted."""
    if found != wanted:
        yield Finding(rule=rule, where=where, said=f"{what} is {found!r}, not {wanted!r}")


def read_all(folder: Path) -> dict[Path, Template]:
    """The templates of a folder."""
    return {path.resolve(): Template.read(path.resolve()) for path in sorted(folder.rglob("*.bicep"))}


def lint(folder: Path) -> list[Finding]:
    """All findings about the templates and the parameter files of a folder."""
    templates = read_all(folder)
    broken = [finding for template in templates.values() for finding in _syntax(template)]
    if broken:
        return broken
    found = [finding for template in templates.values() for rule in _RULES for finding in rule(template)]
    found += _calls(templates)
    for path in sorted(folder.glob("*.parameters*.json")):
        found += _parameter_file(path, templates)
    return sorted(found)


def _syntax(template: Template) -> Iterator[Finding]:
    for node in faults(template):
        yield _at("syntax", template, node, f"the grammar cannot read {text_of(node)[:60]!r}")
    if said := _refused_by_checkov(text_of(template.root)):
        yield Finding(rule="syntax", where=template.path.name, said=f"checkov's parser cannot read it: {said}")


@cache
def _refused_by_checkov(text: str) -> str:
    """What checkov's parser says of a template that it would pass over without a word; empty where it can read it.

    It is slow, so what it said of the same text is remembered.
    """
    try:
        BicepParser().parse(text=text)
    except Exception as error:  # noqa: BLE001 - the parser's errors have no base of their own
        return " ".join(str(error).split())[:200] or type(error).__name__
    return ""


def _symbols(template: Template) -> Iterator[Finding]:
    used = set()
    for node in template.root.named_children:
        for use in _uses_of(node):
            if use.is_function:
                if use.name not in FUNCTIONS and not _LISTS.match(use.name):
                    yield _at("functions", template, use.node, f"there is no function {use.name}")
            elif use.name in template.symbols:
                used.add(use.name)
            else:
                yield _at(
                    "symbols", template, use.node, f"{use.name} is no parameter, variable, resource or module here"
                )
    existing = {resource.symbol for resource in template.resources.values() if resource.existing}
    for name in sorted({*template.params, *template.variables, *existing} - used):
        yield Finding(rule="unused", where=template.path.name, said=f"{name} is declared, and nothing uses it")


def _uses_of(node: Node) -> Iterator[Any]:
    """The names that a declaration uses: its own, and those of its decorators, are none."""
    if node.type.endswith("_declaration"):
        parts = [part for part in node.named_children if part.type not in {"comment", "type"}][1:]
        for part in parts:
            yield from uses(part)


def _versions(template: Template) -> Iterator[Finding]:
    for resource in template.resources.values():
        known = API_VERSIONS.get(resource.type)
        if known is None:
            yield _at("types", template, resource.node, f"{resource.type} is not among the types that were looked up")
        elif resource.version not in known:
            wanted = " or ".join(sorted(known))
            yield _at("versions", template, resource.node, f"{resource.type} is of {resource.version}, not of {wanted}")


def _roles(template: Template) -> Iterator[Finding]:
    """Each GUID is a role, and stands in a variable that is named after it."""
    named = {node.id: name for name, value in template.variables.items() for node in every(value)}
    for node in every(template.root):
        if node.type != "string" or not (found := _GUID.search(text_of(node))):
            continue
        role = ROLES.get(found[0].lower())
        if role is None:
            yield _at("roles", template, node, f"{found[0]} is no role that is known by name")
        elif named.get(node.id) != variable_of(role):
            yield _at("roles", template, node, f"{found[0]} is {role}: let a variable {variable_of(role)} hold it")


def variable_of(role: str) -> str:
    """The variable that holds a role: its name in camel case."""
    first, *rest = re.sub(r"[^A-Za-z ]", "", role).split()
    return first[0].lower() + first[1:] + "".join(word[0].upper() + word[1:] for word in rest)


def _flex(template: Template) -> Iterator[Finding]:
    for node in every(template.root):
        if node.type == "object_property":
            key = node.named_children[0]
            name = literal(key) if key.type == "string" else text_of(key)
            if name in FORBIDDEN_ON_FLEX:
                yield _at("flex", template, node, f"Flex Consumption refuses {name}")


def _secrets(template: Template) -> Iterator[Finding]:
    for node in every(template.root):
        if node.type == "string" and (found := _SECRET_TEXT.search(text_of(node))):
            yield _at("secrets", template, node, f"a text looks like a secret: {found[0][:12]}...")
        if node.type == "call_expression" and _LISTS.match(name := text_of(node.named_children[0]).rpartition(".")[2]):
            yield _at("secrets", template, node, f"{name} may give a secret: use an identity")
        if node.type == "member_expression" and _SECRET_NAME.match(text_of(node).rpartition(".")[2]):
            where = template.path.name, text_of(node)
            if where != CONNECTION_STRING_USER:
                yield _at("secrets", template, node, f"{text_of(node)} is a secret: use an identity")


def _secrets_in_and_out(template: Template) -> Iterator[Finding]:
    for name, param in template.params.items():
        if "secure" in param.decorators:
            yield _at("secrets", template, param.node, f"the parameter {name} takes a secret: let Key Vault hold it")
    for name, (_, value) in template.outputs.items():
        words = " ".join([name, *(text_of(node) for node in every(value) if node.type == "property_identifier")])
        if _SECRET_OUTPUT.search(words):
            yield _at("secrets", template, value, f"the output {name} looks like a secret: outputs stay in the history")


def _refused(template: Template) -> Iterator[Finding]:
    for rule, node, said in refused(template):
        yield _at(rule, template, node, said)


def _described(template: Template) -> Iterator[Finding]:
    """Whoever deploys reads the parameters of what they deploy, and a template says what it is."""
    if not any(node.type == "metadata_declaration" for node in template.root.named_children):
        yield Finding(rule="described", where=template.path.name, said="it has no metadata that says what it is")
    if template.path.parent.name != "modules":
        for name, param in template.params.items():
            if "description" not in param.decorators:
                yield _at("described", template, param.node, f"the parameter {name} is not described")


def _calls(templates: Mapping[Path, Template]) -> Iterator[Finding]:
    called = set()
    for template in templates.values():
        for module in template.modules.values():
            path = (template.path.parent / module.path).resolve()
            called.add(path)
            if path not in templates:
                yield _at("modules", template, module.node, f"there is no {module.path}")
            else:
                yield from _arguments(template, module, templates[path])
        yield from _outputs(template, templates)
        for rule, node, said in wrongly_scoped(template, templates):
            yield _at(rule, template, node, said)
    for path in sorted(templates):
        if path.parent.name == "modules" and path not in called:
            yield Finding(rule="modules", where=path.name, said="no template calls it")


def _arguments(template: Template, module: ModuleCall, called: Template) -> Iterator[Finding]:
    body = entries(body_of(module.value))
    given = entries(body["params"]) if "params" in body else {}
    for name in sorted(given.keys() - called.params.keys()):
        yield _at("arguments", template, given[name], f"{module.path} has no parameter {name}")
    for name, param in called.params.items():
        if name in given:
            was = _type_of(template, given[name])
            if was and was != param.type:
                yield _at("arguments", template, given[name], f"{name} of {module.path} is {param.type}, not {was}")
        elif param.default is None:
            yield _at("arguments", template, module.node, f"{module.path} wants {name}")


def _type_of(template: Template, value: Node) -> str | None:
    """The type of what plainly has one."""
    if value.type == "identifier" and text_of(value) in template.params:
        return template.params[text_of(value)].type
    return _FORMS.get(value.type)


def _outputs(template: Template, templates: Mapping[Path, Template]) -> Iterator[Finding]:
    for node in every(template.root):
        found = (
            re.fullmatch(r"(\w+)(?:\[.*\])?\.outputs\.(\w+)", text_of(node))
            if node.type == "member_expression"
            else None
        )
        module = template.modules.get(found[1]) if found else None
        if found is None or module is None:
            continue
        called = templates.get((template.path.parent / module.path).resolve())
        if called is not None and found[2] not in called.outputs:
            yield _at("outputs", template, node, f"{module.path} has no output {found[2]}")
        if module.value.type == "if_statement":
            yield _at("outputs", template, node, f"{found[1]} is not always there, so its outputs are not either")


def _parameter_file(path: Path, templates: Mapping[Path, Template]) -> Iterator[Finding]:
    template = templates[(path.parent / f"{path.name.partition('.')[0]}.bicep").resolve()]
    given = {name: one["value"] for name, one in json.loads(path.read_text())["parameters"].items()}
    if _SECRET_TEXT.search(path.read_text()):
        yield Finding(rule="secrets", where=path.name, said="a text looks like a secret")
    for name in sorted(given.keys() - template.params.keys()):
        yield Finding(rule="parameters", where=path.name, said=f"{template.path.name} has no parameter {name}")
    for name, param in template.params.items():
        if name in given:
            for said in _wrong(param, given[name]):
                yield Finding(rule="parameters", where=path.name, said=f"{name} is {given[name]!r}: {said}")
        elif param.default is None:
            yield Finding(rule="parameters", where=path.name, said=f"{name} is wanted")


def _wrong(param: Param, value: object) -> Iterator[str]:
    if type(value) is not _TYPES[param.type]:
        yield f"use a value of the type {param.type}"
        return
    for kind, holds in (("minValue", _at_least), ("maxValue", _at_most), ("allowed", _among)):
        for limit in param.decorators.get(kind, []):
            if not holds(value, limit):
                yield f"use {kind} {text_of(limit)}"


def _at_least(value: Any, limit: Node) -> bool:
    return bool(value >= int(text_of(limit)))


def _at_most(value: Any, limit: Node) -> bool:
    return bool(value <= int(text_of(limit)))


def _among(value: Any, limit: Node) -> bool:
    return any((literal(one) if is_literal(one) else int(text_of(one))) == value for one in limit.named_children)


def _at(rule: str, template: Template, node: Node, said: str) -> Finding:
    return Finding(rule=rule, where=f"{template.path.name}:{line_of(node)}", said=said)


_RULES: tuple[Callable[[Template], Iterator[Finding]], ...] = (
    _symbols,
    _versions,
    _roles,
    _flex,
    _secrets,
    _secrets_in_and_out,
    _refused,
    _described,
)
