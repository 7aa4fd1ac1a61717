"""The interpreter of templates gives what Bicep's own documentation says that an expression gives."""

from pathlib import Path
from typing import Any

import pytest

from tests.infra.bicep import Template, faults, uses
from tests.infra.bicep_values import Deployment, Later, Made


def deployment(text: str, where: Path = Path("here.bicep"), **given: Any) -> Deployment:
    template = Template.parse(where, text.encode())
    assert faults(template) == []
    return Deployment(template=template, given=given)


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("'a${1 + 2}b'", "a3b"),
        (r"'it\'s \${x}\n\u{41}\\'", "it's ${x}\nA\\"),
        ("'${true}'", "True"),
        ("[1, 2, 3][1]", 2),
        ("{ a: { b: 'c' } }.a.b", "c"),
        ("{ a: 1 }.?b ?? 5", 5),
        ("1 > 2 ? 'x' : 'y'", "y"),
        ("[true ? { a: 1 }.a : { b: 2 }.b, false ? 1 : { b: 2 }.b]", [1, 2]),
        ("!(true && false)", True),
        ("[for n in range(1, 3): n * 2]", [2, 4, 6]),
        ("[for (one, at) in ['a', 'b']: '${at}${one}']", ["0a", "1b"]),
        ("map(['a', 'b'], one => toUpper(one))", ["A", "B"]),
        ("map([{ k: 'v' }], one => one.k)", ["v"]),
        ("filter([1, 2, 3], one => one > 1)", [2, 3]),
        ("union({ a: 1, b: 2 }, { b: 3 })", {"a": 1, "b": 3}),
        ("union([1, 2], [2, 3])", [1, 2, 3]),
        ("concat([1], [2])", [1, 2]),
        ("last(split('a/b/c', '/'))", "c"),
        ("empty('') && empty([]) && !empty([1])", True),
        ("[toLower('A'), toUpper('b').length]", ["a", "B.length"]),
        ("-(3 - 5) % 2", 0),
        ("null", None),
    ],
)
def test_an_expression_comes_to_its_value(expression: str, value: object) -> None:
    assert deployment(f"var x = {expression}\n").symbol("x") == value


def test_what_only_azure_knows_stays_what_it_is_and_taints_the_text_that_holds_it() -> None:
    found = deployment("resource r 'T/r@1' = { name: 'n' }\nvar x = 'at ${r.properties.url}'\n").symbol("x")
    assert isinstance(found, Later)
    assert found == "at T/r/n.properties.url"


def test_a_resource_has_the_names_of_its_parents_and_none_where_its_condition_fails() -> None:
    made = list(
        deployment(
            """
            param wanted bool
            resource a 'T/a@1' = { name: 'one' }
            resource b 'T/a/b@1' = [for n in ['x', 'y']: if (n == 'y') {
              parent: a
              name: n
            }]
            resource c 'T/c@1' = if (wanted) { name: b[1].id }
            resource d 'T/d@1' existing = { name: 'there' }
            """,
            wanted=False,
        ).resources()
    )
    assert [(one.type, one.full_name) for one in made] == [("T/a", "one"), ("T/a/b", "one/y")]


def test_modules_get_their_parameters_and_give_their_outputs(tmp_path: Path) -> None:
    (tmp_path / "inner.bicep").write_text(
        "param name string\nparam size int = 3\n"
        "resource r 'T/r@1' = { name: '${name}${size}' }\noutput id string = r.id\n"
    )
    outer = deployment(
        """
        module one 'inner.bicep' = { params: { name: 'a' } }
        module more 'inner.bicep' = [for n in ['b', 'c']: { params: { name: n, size: 1 } }]
        output found array = [one.outputs.id, more[1].outputs.id]
        """,
        tmp_path / "outer.bicep",
    )
    assert [one.name for one in outer.resources()] == ["a3", "b1", "c1"]
    assert [found.rpartition("/")[2] for found in outer.output("found")] == ["a3", "c1"]


def test_names_are_those_that_a_template_must_know() -> None:
    text = "var x = [for (one, at) in all: { key: one, '${other}': f(at), k2: map(all, two => two + three) }]\n"
    value = Template.parse(Path("here.bicep"), text.encode()).variables["x"]
    found = {(use.name, use.is_function) for use in uses(value)}
    assert found == {("all", False), ("other", False), ("f", True), ("map", True), ("three", False)}


def test_a_call_in_an_array_is_one_element() -> None:
    found = deployment("var x = [resourceGroup().name, 'a']\nvar y = [\n  toLower('B')\n  'c'\n]\n")
    assert (found.symbol("x"), found.symbol("y")) == (["rg", "a"], ["b", "c"])


def test_the_same_parts_make_the_same_guid_and_others_another() -> None:
    found = deployment("var x = [guid('a', 'b'), guid('a', 'b'), guid('ab')]\n").symbol("x")
    assert found[0] == found[1] != found[2]


def test_a_resource_is_text_nowhere() -> None:
    found = deployment("resource a 'T/a@1' = { name: 'n' }\nvar x = { of: a }\n").symbol("x")
    assert isinstance(found["of"], Made)
