"""The functions of the app by what starts them, as their decorators say; without importing the app."""

import ast
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "functions"
_TRIGGERS = frozenset({"queue_trigger", "timer_trigger"})


def functions_by_message() -> frozenset[str]:
    """The names of functions that a message or a timer starts: each is a group of its own in Flex Consumption."""
    return _started_by(_TRIGGERS)


def functions_by_timer() -> frozenset[str]:
    """The names of functions that a timer starts."""
    return _started_by(frozenset({"timer_trigger"}))


@cache
def _started_by(triggers: frozenset[str]) -> frozenset[str]:
    return frozenset(
        name
        for path in FOLDER.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (name := _started_so(node, triggers))
    )


def _started_so(node: ast.FunctionDef | ast.AsyncFunctionDef, triggers: frozenset[str]) -> str:
    said = {
        one.func.attr: one.args
        for one in node.decorator_list
        if isinstance(one, ast.Call) and isinstance(one.func, ast.Attribute)
    }
    named = said.get("function_name", [])
    if not said.keys() & triggers or not named or not isinstance(named[0], ast.Constant):
        return ""
    return str(named[0].value)
