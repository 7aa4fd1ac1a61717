"""Tests test the tree that they stand in."""

from pathlib import Path

from tests.support.tree import PACKAGES, ROOT, strangers
from tests.unit.project.repository import ROOT as REPOSITORY


def test_packages_of_another_tree_are_told_of(tmp_path: Path) -> None:
    assert ROOT == REPOSITORY
    assert strangers(ROOT) == []
    found = strangers(tmp_path)
    assert [one.split(" from ")[0] for one in found] == list(PACKAGES)
    assert all(str(ROOT) in one for one in found)
