"""What kinds of models the server takes, over its API."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from tests.serving import models
from tests.serving.conftest import Start
from tests.serving.fakes import MemoryStorage
from tests.support.models import classifier, iris

pytestmark = pytest.mark.anyio

_VALUES: dict[str, list[Any]] = {
    "BOOL": [True, False],
    "UINT8": [0, 255],
    "UINT16": [0, 65_535],
    "UINT32": [0, 2**32 - 1],
    "UINT64": [0, 2**64 - 1],
    "INT8": [-128, 127],
    "INT16": [-(2**15), 2**15 - 1],
    "INT32": [-(2**31), 2**31 - 1],
    "INT64": [-(2**63), 2**63 - 1],
    "FP16": [0.5, "NaN"],
    "FP32": [0.25, "-Infinity"],
    "FP64": [1e300, "Infinity"],
    "BYTES": ["", "😀 \x00 ž"],
}


@pytest.mark.parametrize("datatype", sorted(_VALUES))
async def test_each_datatype_makes_the_round_trip(start: Start, storage: MemoryStorage, datatype: str) -> None:
    data = models.identity(datatype)
    storage.put(data)
    storage.publish(models.plan(1, models.route(1, data)))
    async with start() as running:
        await running.reload()
        values = _VALUES[datatype]
        sent = {"name": "x", "datatype": datatype, "shape": [2, 1], "data": values}
        answer = (await running.infer(sent)).json()
        assert answer["outputs"] == [{"name": "y", "datatype": datatype, "shape": [2, 1], "data": values}]
        assert (await running.predict([[value] for value in values])).json()["predictions"] == [[v] for v in values]
        described = (await running.client.get("/v2/models/churn")).json()
        assert described["inputs"] == [{"name": "x", "datatype": datatype, "shape": [-1, -1]}]


async def test_several_inputs_and_outputs_of_different_types(start: Start, storage: MemoryStorage) -> None:
    data = models.graph(
        [
            helper.make_node("Cast", ["age"], ["wide"], to=TensorProto.FLOAT),
            helper.make_node("Add", ["wide", "income"], ["sum"]),
            helper.make_node("Identity", ["plan"], ["label"]),
        ],
        [
            ("age", TensorProto.INT64, ["n", 1]),
            ("income", models.FLOAT, ["n", 1]),
            ("plan", TensorProto.STRING, ["n", 1]),
        ],
        [("label", TensorProto.STRING, ["n", 1]), ("sum", models.FLOAT, ["n", 1])],
    )
    storage.put(data)
    storage.publish(models.plan(1, models.route(1, data)))
    async with start() as running:
        await running.reload()
        features = {"age": [1, 2], "income": [[0.5], [1.5]], "plan": [["basic"], ["gold"]]}
        answer = (await running.predict(features)).json()
        assert answer["predictions"] == [["basic"], ["gold"]]
        assert answer["outputs"] == {"label": [["basic"], ["gold"]], "sum": [[1.5], [3.5]]}
        tensors = [
            {"name": "plan", "datatype": "BYTES", "shape": [1, 1], "data": [["x"]]},
            {"name": "income", "datatype": "FP32", "shape": [1, 1], "data": [1]},
            {"name": "age", "datatype": "INT64", "shape": [1, 1], "data": [2]},
        ]
        body = (await running.infer(*tensors, outputs=[{"name": "sum"}])).json()
        assert body["outputs"] == [{"name": "sum", "datatype": "FP32", "shape": [1, 1], "data": [3.0]}]
        wrong = await running.predict([[1]])
        assert (wrong.status_code, "age, income, plan" in wrong.json()["error"]) == (400, True)


async def test_scalars_and_fixed_and_inner_dynamic_shapes(start: Start, storage: MemoryStorage) -> None:
    shapes: dict[str, tuple[list[Any], Any]] = {
        "scalar": ([], 2.5),
        "fixed": ([2, 2], [[1.0, 2.0], [3.0, 4.0]]),
        "inner": ([1, "m", 3], [[[1.0, 2.0, 3.0]] * 5]),
        "vector": (["n"], [1.0, 2.0, 3.0]),
    }
    for name, (shape, _) in shapes.items():
        data = models.identity("FP32", shape)
        storage.put(data)
        storage.publish(models.plan(1, models.route(1, data), endpoint=name))
    async with start() as running:
        await running.reload()
        for name, (_, value) in shapes.items():
            answer = await running.predict(value, model=name)
            assert answer.json()["predictions"] == value
        assert (await running.predict([[1, 2], [3, 4], [5, 6]], model="fixed")).status_code == 400
        assert (await running.predict([[[1, 2]]], model="inner")).status_code == 400


async def test_a_real_classifier_answers_as_onnx_runtime_does(start: Start, storage: MemoryStorage) -> None:
    import onnxruntime

    data = classifier()
    features, _ = iris()
    wanted = onnxruntime.InferenceSession(data).run(None, {"X": features})
    storage.put(data)
    storage.publish(models.plan(1, models.route(1, data)))
    async with start() as running:
        await running.reload()
        answer = (await running.predict(features.tolist())).json()
        assert answer["predictions"] == wanted[0].tolist()
        assert np.allclose(answer["outputs"]["probabilities"], wanted[1])


async def test_a_model_without_tensors_is_named_as_the_reason(start: Start, storage: MemoryStorage) -> None:
    kind = helper.make_sequence_type_proto(helper.make_tensor_type_proto(models.FLOAT, [None]))
    made = helper.make_graph(
        [helper.make_node("SequenceAt", ["xs", "zero"], ["y"])],
        "graph",
        [helper.make_value_info("xs", kind)],
        [helper.make_tensor_value_info("y", models.FLOAT, [None])],
        [helper.make_tensor("zero", TensorProto.INT64, [], [0])],
    )
    opsets = [helper.make_opsetid("", 17)]
    data = helper.make_model(made, opset_imports=opsets, ir_version=9).SerializeToString()
    storage.put(data)
    storage.publish(models.plan(1, models.route(1, data)))
    async with start() as running:
        failed = (await running.reload())["endpoints"]["churn"]["failed"]
        assert "input 'xs' is a seq(tensor(float))" in failed["1"]
        answer = await running.predict([[1]])
        assert (answer.status_code, "seq(tensor(float))" in answer.json()["error"]) == (503, True)


async def test_weights_outside_the_file_are_not_read(
    start: Start, storage: MemoryStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "weights.bin").write_bytes(np.float32(2.0).tobytes())
    monkeypatch.chdir(tmp_path)
    weight = helper.make_tensor("factor", models.FLOAT, [1], [2.0])
    weight.ClearField("float_data")
    weight.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "weights.bin"), ("length", "4")):
        entry = weight.external_data.add()
        entry.key, entry.value = key, value
    made = helper.make_graph(
        [helper.make_node("Mul", ["x", "factor"], ["y"])],
        "graph",
        [helper.make_tensor_value_info("x", models.FLOAT, ["n"])],
        [helper.make_tensor_value_info("y", models.FLOAT, ["n"])],
        [weight],
    )
    opsets = [helper.make_opsetid("", 17)]
    data = helper.make_model(made, opset_imports=opsets, ir_version=9).SerializeToString()
    storage.put(data)
    storage.publish(models.plan(1, models.route(1, data)))
    async with start() as running:
        assert "External data path" in (await running.reload())["endpoints"]["churn"]["failed"]["1"]
