"""Writes the reference documents that follow from the code: the manifest's and the policy's, each with its JSON Schema.

    python -m local.references

A field's description is the docstring under it in the source. A test holds docs/ equal to what this writes.
"""

import ast
import inspect
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from shared.core.contracts import Contract
from shared.registry import manifest, policy
from shared.validation import refusal

DOCS = Path(__file__).resolve().parent.parent / "docs"

_WRITTEN = "<!-- Written by `python -m local.references`: change the source, not this file. -->"
_BOUNDS = {
    "minimum": "at least {}",
    "exclusiveMinimum": "above {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "below {}",
    "maxLength": "at most {} characters",
    "maxItems": "at most {} items",
    "maxProperties": "at most {} entries",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A reference document: the model that it describes, and what stands above its tables."""

    name: str
    title: str
    model: type[BaseModel]
    intro: str


REFERENCES = (
    Reference(
        name="manifest",
        title="The manifest",
        model=manifest.Manifest,
        intro=(
            "A drop's manifest is the file `slipway.yaml`: YAML without anchors, aliases and merge keys, at\n"
            "most 64 KiB. "
            "Unknown keys are refused. Only `task` must be there. What it claims is never believed: metrics are\n"
            "measured. [Dropping a model](dropping-a-model.md) shows it at work."
        ),
    ),
    Reference(
        name="policy",
        title="The policy of a model",
        model=policy.Policy,
        intro=(
            "What the versions of a model must show before they serve, and how they come to serve. The release\n"
            "manager sets it, not the drop: `slipway policy set MODEL FILE`, or `PUT /api/models/{model}/policy`.\n"
            "Every field has a default, an unknown one is refused, and every change gets a number."
        ),
    ),
)


def documents() -> dict[str, str]:
    """The text of each file, by its path in docs/."""
    files = {}
    for reference in REFERENCES:
        schema = described_schema(reference.model)
        files[f"schemas/{reference.name}.schema.json"] = json.dumps(schema, indent=2) + "\n"
        files[f"{reference.name}.md"] = _document(reference, schema)
    return files | {"refusals.md": _refusals()}


def _refusals() -> str:
    """The codes of refused drops."""
    texts = _value_docstrings(refusal)["RefusalCode"]
    lines = [
        _WRITTEN,
        "# Why a drop is refused",
        "",
        "A refusal is about the drop, and does not change by trying again. Its message says what was found, what was",
        "wanted, and what to do. What a well-formed model is worth is decided by [validation](validation.md).",
        "",
        "| code | |",
        "| --- | --- |",
        *(f"| `{code}` | {_cell(' '.join(texts.get(code.name, '').split()))} |" for code in refusal.RefusalCode),
    ]
    return "\n".join(lines) + "\n"


def described_schema(model: type[BaseModel]) -> dict[str, Any]:
    """A model's JSON Schema (draft 2020-12), with the docstrings of fields as their descriptions."""
    schema = model.model_json_schema()
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
    docstrings = {name: texts for module in _modules_of(model) for name, texts in _field_docstrings(module).items()}
    for name, part in _objects(schema, model.__name__):
        for field, about in part.get("properties", {}).items():
            text = docstrings.get(name, {}).get(field)
            if text:
                about["description"] = text
            about.pop("title", None)
    return schema


def _objects(schema: dict[str, Any], root: str) -> Iterator[tuple[str, dict[str, Any]]]:
    yield root, schema
    yield from schema.get("$defs", {}).items()


def _modules_of(model: type[BaseModel]) -> set[Any]:
    """The modules of a model and of the models that its module uses."""
    used = [found for found in vars(sys.modules[model.__module__]).values() if isinstance(found, type)]
    return {sys.modules[found.__module__] for found in used if issubclass(found, BaseModel | Contract)}


def _field_docstrings(module: Any) -> dict[str, dict[str, str]]:  # noqa: ANN401 - a module
    """For each class of a module the docstring under each of its fields."""
    found: dict[str, dict[str, str]] = {}
    for node in ast.parse(inspect.getsource(module)).body:
        if not isinstance(node, ast.ClassDef):
            continue
        for field, text in zip(node.body, node.body[1:], strict=False):
            match field, text:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(said))):
                    found.setdefault(node.name, {})[name] = inspect.cleandoc(said)
    return found


def _value_docstrings(module: Any) -> dict[str, dict[str, str]]:  # noqa: ANN401 - a module
    """For each class of a module the docstring under each of its plain assignments."""
    found: dict[str, dict[str, str]] = {}
    for node in ast.parse(inspect.getsource(module)).body:
        if not isinstance(node, ast.ClassDef):
            continue
        for value, text in zip(node.body, node.body[1:], strict=False):
            match value, text:
                case ast.Assign(targets=[ast.Name(id=name)]), ast.Expr(value=ast.Constant(value=str(said))):
                    found.setdefault(node.name, {})[name] = inspect.cleandoc(said)
    return found


def _document(reference: Reference, schema: Mapping[str, Any]) -> str:
    lines = [
        _WRITTEN,
        f"# {reference.title}",
        "",
        reference.intro,
        "",
        f"Its JSON Schema: [schemas/{reference.name}.schema.json](schemas/{reference.name}.schema.json).",
    ]
    lines += _table(schema, schema, heading=None)
    return "\n".join(lines) + "\n"


def _table(part: Mapping[str, Any], schema: Mapping[str, Any], heading: str | None) -> list[str]:
    """The tables of an object and, after it, of the objects in it."""
    lines: list[str] = []
    rows: list[str] = []
    nested: list[str] = []
    for field, about in part["properties"].items():
        inner = _object_in(about, schema)
        path = f"{heading}.{field}" if heading else field
        if inner is not None and "default" in about and isinstance(about["default"], dict):
            nested += _table(schema["$defs"][inner], schema, path)
            continue
        if inner is not None:
            nested += _table(schema["$defs"][inner], schema, path if "anyOf" in about else f"{path}[]")
        default = "required" if field in part.get("required", ()) else _default(about)
        text = " ".join(about.get("description", "").split())
        rows.append(f"| `{field}` | {_kind(about, schema)} | {default} | {_cell(text)} |")
    if heading:
        lines += ["", f"## `{heading}`", "", " ".join(part.get("description", "").split())]
    if rows:
        lines += ["", "| key | form | default | |", "| --- | --- | --- | --- |", *rows]
    return lines + nested


def _object_in(about: Mapping[str, Any], schema: Mapping[str, Any]) -> str | None:
    """The name of the object that a field holds, itself, in a list or in a map; or null where no other field holds
    such an object, whose table then stands there.
    """
    items = about.get("items", {})
    values = about.get("additionalProperties", {})
    options = [one for one in about.get("anyOf", ()) if one.get("$ref") not in _held(schema)]
    for holder in (
        about,
        *options,
        items if isinstance(items, dict) else {},
        values if isinstance(values, dict) else {},
    ):
        name = str(holder.get("$ref", "")).rsplit("/", maxsplit=1)[-1]
        if "properties" in schema.get("$defs", {}).get(name, {}):
            return name
    return None


def _held(schema: Mapping[str, Any]) -> set[str]:
    """The objects that fields hold that are never null."""
    parts = [schema, *schema.get("$defs", {}).values()]
    return {about["$ref"] for part in parts for about in part.get("properties", {}).values() if "$ref" in about}


def _kind(about: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    if "$ref" in about:
        target = schema["$defs"][about["$ref"].rsplit("/", maxsplit=1)[-1]]
        return " or ".join(f"`{value}`" for value in target["enum"]) if "enum" in target else _kind(target, schema)
    if "anyOf" in about:
        return " or ".join(dict.fromkeys(_kind(option, schema) for option in about["anyOf"]))
    bounds = [text.format(_number(about[key])) for key, text in _BOUNDS.items() if key in about]
    kind = {"null": "null", "object": "map", "array": "list"}.get(about.get("type", ""), about.get("type", "any value"))
    if kind == "list" and isinstance(about.get("items"), dict):
        kind = f"list of {_kind(about['items'], schema)}"
    if kind == "map" and isinstance(about.get("additionalProperties"), dict):
        kind = f"map to {_kind(about['additionalProperties'], schema)}"
    return f"{kind}, {', '.join(bounds)}" if bounds else kind


def _default(about: Mapping[str, Any]) -> str:
    default = about.get("default")
    if default in ({}, [], ""):
        return "empty"
    return f"`{json.dumps(default)}`" if "default" in about else "empty"


def _number(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() and abs(value) >= 10_000 else f"{value:g}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def main() -> None:
    """Write the files."""
    for name, text in documents().items():
        path = DOCS / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(path.relative_to(DOCS.parent))  # noqa: T201 - what the command answers


if __name__ == "__main__":
    main()
