"""What fails in a round is told of, and the rounds go on."""

from pathlib import Path

import numpy as np

from benchmarks.serving.experiment import ort_cell
from benchmarks.serving.machine import Cores
from benchmarks.serving.ratios import Measurement
from benchmarks.serving.rounds import Ask, Length, measure
from benchmarks.serving.subjects import Subject
from benchmarks.serving.wire import Form
from benchmarks.serving.workloads import Workload
from local import processes


def test_a_server_that_does_not_answer_ends_no_round(tmp_path: Path) -> None:
    rows = np.zeros((64, 3), dtype=np.float32)
    workload = Workload(name="m", path=tmp_path / "m.onnx", input_name="x", output_name="y", rows=rows)
    with processes.start(
        "sleep", ["sleep", "60"], log_path=tmp_path / "log", ready=lambda: True, deadline_s=10
    ) as child:
        paths = {Form.PLAIN: "/predict", Form.GRPC: "m"}
        nobody = Subject(
            name="nobody",
            workload=workload,
            child=child,
            port=processes.free_port(),
            paths=paths,
            grpc_port=processes.free_port(),
        )
        found = measure(
            [(nobody, [Ask(), Ask(form=Form.GRPC), Ask(form=Form.V2_JSON)])],
            length=Length(rounds=2, measured_s=1),
            cores=Cores(serve="0", load="0"),
            folder=tmp_path,
            beside=_beside,
        )
    assert [one.round for one in found.measurements] == [0, 1]
    assert [name.split(", ")[1] for name in found.failed] == ["plain", "grpc"] * 2  # it takes no V2 and is not asked it


def _beside(number: int) -> Measurement:
    return Measurement(
        cell=ort_cell("m"), round=number, rate=1.0, p50_ms=1.0, p90_ms=1.0, p99_ms=1.0, max_ms=1.0, cpu_us=1.0
    )
