"""What a bare model says of itself, in its own metadata and its blob's."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from onnx import helper

from shared.registry.manifest import Manifest, Task
from shared.registry.policy import SigningPolicy
from shared.validation.intake import take_in
from shared.validation.refusal import DropRefusedError, RefusalCode
from shared.validation.wire import IntakeTask
from tests.unit.validation.drops import LIMIT_BYTES, ignore, scorer

KEY = "-----BEGIN PUBLIC KEY-----\n" + "A" * 64


def taken(
    folder: Path, own: Mapping[str, str], blobs: Mapping[str, str] | None = None, signing: SigningPolicy | None = None
) -> Manifest:
    model = scorer()
    helper.set_model_props(model, dict(own))
    (folder / "m").write_bytes(model.SerializeToString())
    task = IntakeTask(
        path=folder / "m", filename="m.onnx", metadata=dict(blobs or {}), signing=signing or SigningPolicy()
    )
    return take_in(task, workdir=folder, file_bytes=LIMIT_BYTES, begin=ignore).manifest


def test_entries_become_the_manifests_values(tmp_path: Path) -> None:
    own = {
        "slipway.task": "regression",
        "slipway.author": "someone@example.org",
        "slipway.description": "Prices, by what is known.",
        "slipway.run_id": "r1",
        "slipway.git_commit": "abc123",
        "slipway.training_data_version": "2026-05",
        "slipway.label": "price",
        "slipway.prediction": "scores",
        "slipway.probability": "p",
        "slipway.positive_class": "01",
        "slipway.feature_names": "height, width,depth",
        "slipway.slices": "region",
        "slipway.protected": "sex,age",
        "slipway.tags.team": "housing",
        "slipway.tags.cost centre": "4711",
        "slipway.parameters.trees": "200",
        "slipway.parameters.rate": "0.5",
        "slipway.parameters.loss": "squared",
        "slipway.parameters.missing": "nan",
        "slipway.parameters.most": "-inf",
        "slipway.parameters.seed": str(2**53 - 1),
        "slipway.parameters.larger": str(-(2**53)),
        "slipway.parameters.largest": "1" + "0" * 400,
        "slipway.metrics.r2": "0.83",
        "slipway.metrics.rows": str(2**53),
        "producer": "somebody",
        "slipwayish": "no entry of ours",
    }
    assert taken(tmp_path, own) == Manifest(
        task=Task.REGRESSION,
        author="someone@example.org",
        description="Prices, by what is known.",
        run_id="r1",
        git_commit="abc123",
        training_data_version="2026-05",
        label="price",
        prediction="scores",
        probability="p",
        positive_class="01",
        feature_names=("height", "width", "depth"),
        slices=("region",),
        protected=("sex", "age"),
        tags={"team": "housing", "cost centre": "4711"},
        parameters={
            "trees": 200,
            "rate": 0.5,
            "loss": "squared",
            "missing": "nan",
            "most": "-inf",
            "seed": 2**53 - 1,
            "larger": "-9007199254740992",
            "largest": "1" + "0" * 400,
        },
        metrics={"r2": 0.83, "rows": 2.0**53},
    )


def test_the_blobs_metadata_wins_whatever_the_case_of_its_names(tmp_path: Path) -> None:
    own = {"slipway.task": "classification", "slipway.author": "a", "slipway.tags.team": "x", "slipway.tags.site": "s"}
    found = taken(tmp_path, own, {"Slipway_Task": "regression", "slipway_tags_team": "y", "uploaded_by": "z"})
    assert (found.task, found.author, found.tags) == (Task.REGRESSION, "a", {"team": "y", "site": "s"})


@pytest.mark.parametrize(
    ("own", "blobs", "said"),
    [
        ({"slipway.taks": "regression"}, {}, "unknown entry 'slipway.taks': the entries are slipway. with task, label"),
        ({}, {"slipway_taks": "regression"}, "unknown entry 'slipway_taks'"),
        ({"slipway.": "x"}, {}, "unknown entry 'slipway.'"),
        ({"slipway.tags.": "x"}, {}, "unknown entry 'slipway.tags.'"),
        ({"slipway.model": "m.onnx"}, {}, "'model' needs a manifest"),
        ({"slipway.validation": "v.npz"}, {}, "'validation' needs a manifest"),
        ({"slipway.task": "guess"}, {}, "the model's metadata: task is 'guess'"),
        ({"slipway.metrics.f1": "high"}, {}, "metrics.f1 is 'high'"),
        ({"slipway.metrics.f1": "nan"}, {}, "metrics.f1 is 'nan'"),
        ({"slipway.metrics.rows": "1" + "0" * 400}, {}, "metrics.rows is '1000"),
        ({"slipway.feature_names": "a,,b"}, {}, "feature_names.1"),
        ({"slipway.author": "a" * 201}, {}, "author"),
        ({"slipway.parameters.seed": "9" * 5_000}, {}, "parameters.seed"),
    ],
)
def test_an_entry_that_cannot_be_used_is_refused(
    tmp_path: Path, own: Mapping[str, str], blobs: Mapping[str, str], said: str
) -> None:
    with pytest.raises(DropRefusedError) as caught:
        taken(tmp_path, own, blobs)
    assert caught.value.code is RefusalCode.BAD_MANIFEST
    assert said in str(caught.value)


def test_a_bare_model_cannot_be_signed(tmp_path: Path) -> None:
    with pytest.raises(DropRefusedError) as caught:
        taken(tmp_path, {}, signing=SigningPolicy(required=True, trusted_keys=(KEY,)))
    assert caught.value.code is RefusalCode.UNSIGNED
    assert "drop a bundle or folder with the signature as model.sig" in str(caught.value)
