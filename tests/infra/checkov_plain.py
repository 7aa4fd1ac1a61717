"""Templates as checkov can look at them: without the conditions and the choices that blind it.

checkov 3 unwraps what a loop makes and not what an `if` makes: of a resource with a condition it sees no property, so
that a storage account which is open to everybody passes, and checks that want a property die. Of a value that is
chosen (`a ? 'x' : 'y'`) it sees an object; and a file in which a lambda gives an object its older parser passes over
whole. Here conditions are taken off, every choice is made, once for what stands first and once for the other, and of
what is mapped to objects stands what is mapped.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

from tree_sitter import Node

from tests.infra.bicep import Template, text_of

SIDES = {"where": 1, "otherwise": 2}
"""The folders of the two, and which part of a choice each takes."""


def plain(folder: Path, to: Path) -> None:
    """Write the templates of a folder to folders in `to`, each of `SIDES`."""
    for side, part in SIDES.items():
        shutil.copytree(folder, to / side)
        for path in (to / side).rglob("*.bicep"):
            path.write_bytes(_without(Template.read(path), part))


def _without(template: Template, part: int) -> bytes:
    """The template's text, with the changes made from its end on, so that places before them stay."""
    text = template.root.text or b""
    for start, end, new in sorted(_changes(template.root, part), reverse=True):
        text = text[:start] + new + text[end:]
    return text


def _changes(node: Node, part: int) -> Iterator[tuple[int, int, bytes]]:
    if (kept := _kept(node, part)) is not None:
        yield node.start_byte, node.end_byte, (kept.text or b"")
        return
    if node.type == "if_statement":
        yield node.start_byte, node.named_children[-1].start_byte, b""
    for child in node.named_children:
        yield from _changes(child, part)


def _kept(node: Node, part: int) -> Node | None:
    """What stands for a node: the one side of a choice between texts, what is mapped to objects; None for itself."""
    children = node.named_children
    if node.type == "ternary_expression" and all(side.type == "string" for side in children[1:]):
        return children[part] if node.parent is not None and node.parent.type == "object_property" else None
    if node.type == "call_expression" and text_of(children[0]) == "map":
        mapped, change = children[1].named_children
        return mapped if change.type == "lambda_expression" and change.named_children[-1].type == "object" else None
    return None
