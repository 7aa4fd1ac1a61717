"""Drops that are cut off, at every tenth of their bytes: none is ever registered, and the whole one is.

Real files and the real intake. Here it runs in this process; a long test sends each cut through the sandbox.
"""

import io
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from onnx import TensorProto, helper

from benchmarks.large_drop import write_drop
from shared.registration.documents import Drop, DropState
from shared.registry.policy import SigningPolicy
from shared.store.ports import BlobContainer
from shared.validation.intake import manifest_of_folder, take_in
from shared.validation.sandbox import Intake, SandboxLimits, read_manifest, run_intake
from shared.validation.wire import IntakeTask
from tests.world.test_registration import registry_of
from tests.world.world import MODEL, World, _intake

TENTHS = range(10)


def bare(_: Path) -> dict[str, bytes]:
    weights = helper.make_tensor("weights", TensorProto.FLOAT, [3, 40], [0.5] * 120)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "weights"], ["y"])],
        "whole",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", 40])],
        initializer=[weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return {"model.onnx": bytes(model.SerializeToString())}


def folder(scratch: Path) -> dict[str, bytes]:
    write_drop(scratch, 4_000)
    return {f"folder/{file.name}": file.read_bytes() for file in sorted(scratch.iterdir())}


def folder_with_its_manifest_first(scratch: Path) -> dict[str, bytes]:
    return dict(reversed(folder(scratch).items()))


def bundle(scratch: Path) -> dict[str, bytes]:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in folder(scratch).items():
            archive.writestr(name.removeprefix("folder/"), data)
    return {"bundle.zip": buffer.getvalue()}


def cut(files: Mapping[str, bytes], keep_bytes: int) -> dict[str, bytes]:
    """The files in their order, up to so many bytes of all; the one in which that falls is cut, or empty."""
    kept: dict[str, bytes] = {}
    for name, data in files.items():
        kept[name] = data[: max(0, keep_bytes)]
        keep_bytes -= len(data)
        if keep_bytes <= 0:
            break
    return kept


def intake_here(
    dropped: Path | Mapping[str, Path],
    *,
    filename: str,
    workdir: Path,
    limits: SandboxLimits,
    metadata: Mapping[str, str],
    signing: SigningPolicy,
) -> Intake:
    """The intake in this process; for what it accepts the world's stand-in answers."""
    files: dict[str, Path] = {} if isinstance(dropped, Path) else dict(dropped)
    work = IntakeTask(
        path=dropped if isinstance(dropped, Path) else None,
        filename=filename,
        folder=files,
        metadata=dict(metadata),
        signing=signing,
    )
    take_in(work, workdir=workdir, file_bytes=limits.file_bytes, begin=lambda _: None)
    return _intake(dropped, filename=filename)


def manifest_here(path: Path, **_: object) -> Any:
    return manifest_of_folder(path)


def registered(world: World) -> list[Drop]:
    return [drop for drop in world.registration.drops(MODEL).items if drop.state is DropState.REGISTERED]


def check_cuts(make: Callable[[Path], dict[str, bytes]], scratch: Path, **look: Any) -> None:
    files = make(scratch)
    total_bytes = sum(map(len, files.values()))
    for tenth in TENTHS:
        world = World()
        registration = registry_of(world, **look)
        for name, data in cut(files, total_bytes * tenth // 10).items():
            world.blobs.put(BlobContainer.INCOMING, f"{MODEL}/{name}", data, {})
        for name in files:
            registration.register(f"{MODEL}/{name}")
        (drop,) = world.registration.drops(MODEL).items
        assert drop.state in {DropState.WAITING, DropState.REFUSED}, tenth
        assert drop.reason or drop.waiting_for, tenth
        assert not world.registry.models().items, tenth
        assert not [name for container, name in world.blobs.held if container is BlobContainer.ARTIFACTS], tenth
    # The last one is made whole.
    for name, data in files.items():
        world.blobs.put(BlobContainer.INCOMING, f"{MODEL}/{name}", data, {})
    for name in files:
        registration.register(f"{MODEL}/{name}")
    assert [drop.version for drop in registered(world)] == [1]


FORMS = pytest.mark.parametrize("make", [bare, bundle, folder, folder_with_its_manifest_first])


@FORMS
def test_a_drop_that_is_cut_at_any_tenth_of_its_bytes_is_never_registered(
    make: Callable[[Path], dict[str, bytes]], tmp_path: Path
) -> None:
    check_cuts(make, tmp_path, intake=intake_here, parse_manifest=manifest_here)


@pytest.mark.long
@FORMS
def test_a_drop_that_is_cut_at_any_tenth_of_its_bytes_is_never_registered_by_way_of_the_sandbox(
    make: Callable[[Path], dict[str, bytes]], tmp_path: Path
) -> None:
    check_cuts(make, tmp_path, intake=run_intake, parse_manifest=read_manifest)
