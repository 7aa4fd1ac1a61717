"""What a version is validated beside, and what is kept of it. Only the sandbox is a stand-in."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from shared.core.ids import VersionNumber
from shared.core.messages import ValidateVersion
from shared.core.verdict import Outcome, Verdict
from shared.registry.documents import ModelVersion, version_id
from shared.routing.plan import ArtifactFile, artifact_blob_name
from shared.store.ports import BlobContainer
from shared.validation.report import ValidationReport
from shared.validation.sandbox import ModelFiles, SandboxLimits, Validation
from shared.validation.service import ValidationService
from tests.world.world import MODEL, World

FIRST, SECOND = VersionNumber(1), VersionNumber(2)


class Sandbox:
    """Passes everything, and keeps what it was given: files as their contents."""

    def __init__(self) -> None:
        self.given: dict[str, Any] = {}

    def __call__(self, **given: object) -> Validation:
        self.given = {name: _read(value) for name, value in given.items()}
        verdict = Verdict(check="accuracy", outcome=Outcome.PASS, sentence="<b>fine</b>", n=1)
        return Validation(report=ValidationReport(outcome=Outcome.PASS, verdicts=(verdict,)), golden=None)


def _read(value: object) -> object:
    if isinstance(value, Path):
        return value.read_bytes() if value.is_file() else value
    if isinstance(value, ModelFiles):
        return {"model": _read(value.path), **{name: _read(path) for name, path in value.external.items()}}
    return value


def service(world: World, sandbox: Sandbox, champion: int | None) -> ValidationService:
    return ValidationService(
        versions=world.validation._versions,
        registry=world.registry,
        blobs=world.blobs,
        clock=world.clock,
        limits=SandboxLimits(),
        champion=lambda _: champion,
        check=sandbox,
    )


def registered(world: World, content: str, name: str) -> ModelVersion:
    """A version that is registered and not validated."""
    world.registration.register(world.drop(content, name=name))
    number = world.registry.model(MODEL).latest_version
    return world.registry.version(MODEL, VersionNumber(number))


def validated(champion: int | None, *, world: World | None = None) -> Mapping[str, Any]:
    """What the sandbox is given for the second version."""
    if world is None:
        world = World()
        registered(world, "first", "a.onnx")
    registered(world, "second", "b.onnx")
    sandbox = Sandbox()
    service(world, sandbox, champion).validate(ValidateVersion(model=MODEL, version=SECOND))
    return sandbox.given


def test_a_version_is_given_the_champion_with_its_manifest() -> None:
    given = validated(1)
    assert given["model"] == {"model": b"second"}
    assert given["champion"] == {"model": b"first"}
    assert (given["champion_version"], given["champion_unusable"]) == (1, "")
    assert given["champion_manifest"].task == "classification"


@pytest.mark.parametrize("champion", [None, 2, 9])
def test_there_is_nothing_to_compare_with_but_another_version_that_exists(champion: int | None) -> None:
    given = validated(champion)
    assert (given["champion"], given["champion_version"], given["champion_unusable"]) == (None, None, "")


@pytest.mark.parametrize(("content", "said"), [(None, "is gone"), (b"other", "was changed after registration")])
def test_a_champion_whose_artifact_is_gone_or_altered_is_said_to_be(content: bytes | None, said: str) -> None:
    world = World()
    first = registered(world, "first", "a.onnx")
    key = (BlobContainer.ARTIFACTS, artifact_blob_name(first.artifact_digest))
    del world.blobs.held[key]
    if content is not None:
        world.blobs.put(*key, content, {})
    given = validated(1, world=world)
    assert (given["champion"], given["champion_version"]) == (None, 1)
    assert given["champion_unusable"].startswith("cannot be had: artifact")
    assert said in given["champion_unusable"]


def test_external_data_comes_under_the_names_that_the_model_knows() -> None:
    world = World()
    version = registered(world, "first", "a.onnx")
    weights = registered(world, "weights", "w.onnx")

    def name_it(current: ModelVersion) -> bool:
        current.external = [ArtifactFile(name="sub/w.bin", digest=weights.artifact_digest, size_bytes=7)]
        return True

    world.validation._versions.change(MODEL, version_id(version.version), name_it)
    sandbox = Sandbox()
    service(world, sandbox, None).validate(ValidateVersion(model=MODEL, version=FIRST))
    assert sandbox.given["model"] == {"model": b"first", "sub/w.bin": b"weights"}


def test_the_report_is_kept_as_a_page_and_the_policy_it_was_held_against_by_its_number() -> None:
    world = World()
    world.put_policy(world.registry.model(registered(world, "first", "a.onnx").model).policy)
    validation = service(world, Sandbox(), None)
    version = validation.validate(ValidateVersion(model=MODEL, version=FIRST))
    assert version is not None
    assert version.validation is not None
    assert version.validation.policy_version == world.registry.model(MODEL).policy_version == 1
    pages = [name for container, name in world.blobs.held if name.endswith(".html")]
    assert pages == [version.validation.report_blob.replace(".json", ".html")]
    page = validation.page(MODEL, FIRST)
    assert f"{MODEL}, version 1" in page
    assert "&lt;b&gt;fine&lt;/b&gt;" in page
    del world.blobs.held[BlobContainer.REPORTS, pages[0]]
    assert "&lt;b&gt;fine&lt;/b&gt;" in validation.page(MODEL, FIRST)


def test_the_champion_is_the_alias_and_without_one_what_is_stable() -> None:
    world = World()
    world.event(world.drop("first", name="a.onnx"))
    world.run(seconds=120)
    assert world.stable == 1
    assert world.validation._champion(MODEL) == 1
    assert world.validation._champion("another") is None
