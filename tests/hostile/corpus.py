"""The corpus: hostile drops, each with the reason that it must be refused for."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from shared.validation.refusal import RefusalCode as Code
from tests.hostile import files, models
from tests.unit.validation.drops import good_bundle

type Build = Callable[[], bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """A hostile drop. Intake refuses it with `code`; without one it passes intake and fails the check `check`."""

    name: str
    filename: str
    build: Build
    said: str
    code: Code | None = None
    check: str = ""


def _model(name: str, build: Build, code: Code, said: str) -> Artifact:
    return Artifact(name=name, filename="m.onnx", build=build, code=code, said=said)


def _bundle(name: str, build: Build, code: Code, said: str) -> Artifact:
    return Artifact(name=name, filename="b.zip", build=build, code=code, said=said)


def _unfit(name: str, build: Build, check: str, said: str) -> Artifact:
    return Artifact(name=name, filename="m.onnx", build=build, check=check, said=said)


_DAMAGED_MODELS = (
    _model("empty file", lambda: b"", Code.NOT_ONNX, "it is empty"),
    _model("zeros", lambda: bytes(100_000), Code.NOT_ONNX, "cut or damaged: byte 0"),
    _model("text", lambda: b"hello world\n" * 100, Code.NOT_ONNX, "byte 2 begins no field"),
    _model("archive named .onnx", files.flat_bomb, Code.NOT_ONNX, "begins no field"),
    _model("truncated", models.truncated, Code.NOT_ONNX, "the field at byte 2 ends beyond what holds it"),
    _model("bit flipped", models.bit_flipped, Code.NOT_ONNX, "the field at byte 4 ends beyond"),
    _model("two graphs", models.two_graphs, Code.NOT_ONNX, "it holds 2 graphs"),
    _model("groups", models.grouped, Code.NOT_ONNX, "byte 106 begins no field"),
    _model("name that is no text", models.bad_text, Code.NOT_ONNX, "is not UTF-8"),
    _model("text of a gigabyte declared", models.text_of_a_gigabyte, Code.NOT_ONNX, "ends beyond what holds it"),
    _model("name of ten megabytes", models.long_name, Code.TOO_LARGE, "a name of 10000000 bytes"),
)

_TENSORS = (
    _model(
        "sides overflow", lambda: models.with_tensor(models.tensor(2**62, 2**62)), Code.TOO_LARGE, "2.13e+37 elements"
    ),
    _model(
        "sides overflow beside zero",
        lambda: models.with_tensor(models.tensor(0, 2**40, 2**40)),
        Code.TOO_LARGE,
        "1.21e+24 elements",
    ),
    _model(
        "negative side",
        lambda: models.with_tensor(models.tensor(-1)),
        Code.NOT_ONNX,
        "the shape [-1] with a negative side",
    ),
    _model(
        "terabyte declared",
        lambda: models.with_tensor(models.tensor(2**18, 2**14)),
        Code.NOT_ONNX,
        "holds 4 bytes, and its shape [262144, 16384] takes 17179869184",
    ),
    _model(
        "one value too few",
        lambda: models.with_tensor(models.tensor(2)),
        Code.NOT_ONNX,
        "holds 4 bytes, and its shape [2] takes 8",
    ),
    _model("unknown type", lambda: models.with_tensor(models.tensor(4, kind=99)), Code.NOT_ONNX, "the unknown type 99"),
    _model(
        "a hundred dimensions",
        lambda: models.with_tensor(models.tensor(*[1] * 100)),
        Code.TOO_LARGE,
        "more than 64 dimensions",
    ),
    _model("sparse giant", models.sparse_giant, Code.TOO_LARGE, "a sparse tensor has the shape [1048576, 262144]"),
    _model(
        "input of a terabyte a row", models.huge_input_shape, Code.TOO_LARGE, "'x' has the shape [1, 1048576, 1048576]"
    ),
    _model("same initializer twice", models.same_initializer_twice, Code.NOT_ONNX, "w initializer name is not unique"),
)

_GRAPHS = (
    _model("cycle", models.cyclic, Code.NOT_ONNX, "must be topologically sorted, however input 'z'"),
    _model(
        "node that feeds itself", models.own_input, Code.NOT_ONNX, "must be topologically sorted, however input 'y'"
    ),
    _model(
        "value written twice", models.written_twice, Code.NOT_ONNX, "'y' has been used as output names multiple times"
    ),
    _model("hundreds of thousands of nodes", models.many_nodes, Code.TOO_LARGE, "more than 200000 nodes"),
    _model("forty nested ifs", partial(models.nested_ifs, 40), Code.TOO_LARGE, "nest more than 32 deep"),
    _model("thousands of nested ifs", partial(models.nested_ifs, 2_000), Code.TOO_LARGE, "nest more than 32 deep"),
    _model(
        "nested types",
        partial(models.nested_types, 5_000),
        Code.TOO_LARGE,
        "the type of the value 'v' nests more than 32 deep",
    ),
    _model(
        "function that calls itself", partial(models.recursive_functions, circle=1), Code.NOT_ONNX, "in a circle: 'f0'"
    ),
    _model(
        "functions in a circle",
        partial(models.recursive_functions, circle=3),
        Code.NOT_ONNX,
        "in a circle: 'f0', 'f1', 'f2'",
    ),
    _model("functions that double", models.laughing_functions, Code.TOO_LARGE, "unfold to more than 1000000 nodes"),
    _model("a long chain of functions", partial(models.function_chain, 3_000), Code.TOO_LARGE, "more than 64 deep"),
    _model("unknown operator", models.unknown_operator, Code.NOT_ONNX, "No Op registered for RunShellCommand"),
    _model(
        "IR version of the future", partial(models.of_versions, ir_version=99), Code.NOT_ONNX, "ir_version 99 is higher"
    ),
    _model("negative IR version", partial(models.of_versions, ir_version=-1), Code.NOT_ONNX, "its IR version is -1"),
    _model("negative opset", partial(models.of_versions, opset=-1), Code.NOT_ONNX, "the opset of '' is -1"),
    _unfit(
        "opset of the future",
        partial(models.of_versions, opset=99),
        "onnx",
        "the opset 99 of ai.onnx is not among 7 to 26",
    ),
    _unfit("custom operator", models.custom_operator, "onnx", "the operator acme::Evil is a custom one"),
    _unfit(
        "opset of the past", partial(models.of_versions, opset=6), "onnx", "the opset 6 of ai.onnx is not among 7 to 26"
    ),
)

_GROWTH = (
    _model(
        "ConstantOfShape", models.huge_constant_of_shape, Code.TOO_LARGE, "(ConstantOfShape) makes 100000000000 bytes"
    ),
    _model("Expand", models.huge_expand, Code.TOO_LARGE, "(Expand) makes 1099511627776 bytes"),
    _model("Tile", models.huge_tile, Code.TOO_LARGE, "(Tile) makes 2199023255552 bytes"),
    _model("Pad", models.huge_pad, Code.TOO_LARGE, "(Pad) makes 1099511627776 bytes"),
    _model("Range", models.huge_range, Code.TOO_LARGE, "(Range) makes 140737488355328 bytes"),
    _model("RandomNormal", models.huge_random, Code.TOO_LARGE, "(RandomNormal) makes 4398046511104 bytes"),
    _model(
        "constant in a branch",
        models.huge_constant_in_a_branch,
        Code.TOO_LARGE,
        "(ConstantOfShape) makes 4398046511104 bytes",
    ),
    _unfit(
        "constant folded when loaded", models.constant_folded_when_loaded, "sandbox", "used more than 2 GB of memory"
    ),
    _unfit("memory when run", models.memory_bomb, "sandbox", "used more than 2 GB of memory while"),
    _unfit("doubling forty times", models.doubling, "sandbox", "used more than 2 GB of memory while"),
    _unfit("endless loop", models.endless, "sandbox", "s of CPU time while"),
    _unfit("scan of a hundred million steps", models.long_scan, "sandbox", "s of CPU time while"),
    Artifact(
        name="reads beside its data",
        filename="b.zip",
        build=lambda: good_bundle(model=models.out_of_range()),
        check="run",
        said="indices element out of data bounds",
    ),
)

_EXTERNAL = (
    _model(
        "external data, absolute",
        partial(models.external, "/etc/passwd"),
        Code.EXTERNAL_DATA,
        "'/etc/passwd' is no plain relative name",
    ),
    _model(
        "external data, climbing out",
        partial(models.external, "../../etc/passwd"),
        Code.EXTERNAL_DATA,
        "'../../etc/passwd' is no plain relative name",
    ),
    _model(
        "external data, missing",
        partial(models.external, "w.bin"),
        Code.EXTERNAL_DATA,
        "'w.bin' is no file of the drop",
    ),
    _bundle(
        "external data, too short",
        lambda: files.external(models.external("w.bin"), w_bin=bytes(11)),
        Code.EXTERNAL_DATA,
        "which has 11",
    ),
    _bundle(
        "external data, offset overflows",
        lambda: files.external(models.external("w.bin", offset=str(2**64)), w_bin=bytes(12)),
        Code.EXTERNAL_DATA,
        "is no number of bytes",
    ),
    _bundle(
        "external data, the model itself",
        lambda: files.external(models.external("model.onnx")),
        Code.EXTERNAL_DATA,
        "'model.onnx' is no file of the drop",
    ),
)

_ARCHIVES = (
    _bundle("flat zip bomb", files.flat_bomb, Code.TOO_LARGE, "more than 200 times its size"),
    _bundle("nested zip bomb", files.nested_bomb, Code.NOT_ONNX, "begins no field"),
    _bundle(
        "overlapping members",
        files.overlapping,
        Code.NOT_ZIP,
        "File name in directory 'rows.npz' and header b'model.onnx' differ",
    ),
    _bundle("member larger than it says", partial(files.lying_size, declared=100), Code.NOT_ZIP, "Bad CRC-32"),
    _bundle(
        "member smaller than it says",
        partial(files.lying_size, declared=60_000),
        Code.NOT_ZIP,
        "holds 50000 bytes and declares 60000",
    ),
    _bundle(
        "member of four gigabytes",
        partial(files.lying_size, declared=2**32 - 2),
        Code.TOO_LARGE,
        "expands to 4294967315 bytes",
    ),
    _bundle("path that climbs out", partial(files.with_member, "../escape"), Code.UNSAFE_PATH, "'../escape'"),
    _bundle("absolute path", partial(files.with_member, "/etc/cron.d/x"), Code.UNSAFE_PATH, "'/etc/cron.d/x'"),
    _bundle("path with a backslash", partial(files.with_member, "..\\escape"), Code.UNSAFE_PATH, "escape'"),
    _bundle(
        "symbolic link",
        partial(files.with_member, "link", mode=0o120777, content=b"/etc/passwd"),
        Code.UNSAFE_PATH,
        "a link or special file named 'link'",
    ),
    _bundle(
        "device",
        partial(files.with_member, "disk", mode=0o060644),
        Code.UNSAFE_PATH,
        "a link or special file named 'disk'",
    ),
    _bundle("same name twice", partial(files.with_member, "model.onnx"), Code.DUPLICATE_FILE, "'model.onnx' twice"),
    _bundle("thousands of members", files.many_members, Code.TOO_LARGE, "5000 members"),
    _bundle("other method", files.other_method, Code.NOT_ZIP, "another method than deflate"),
    _bundle("encrypted", files.encrypted, Code.ENCRYPTED, "is encrypted"),
    _bundle("deep signature", files.deep_signature, Code.BAD_SIGNATURE, "nests more than"),
    _bundle("signature of forty megabytes", files.long_signature, Code.TOO_LARGE, "more than 200 times its size"),
)

_MANIFESTS = (
    _bundle(
        "aliases that multiply",
        lambda: files.with_manifest(files.laughing_manifest()),
        Code.BAD_MANIFEST,
        "anchor or alias ('a0')",
    ),
    _bundle(
        "brackets within brackets",
        lambda: files.with_manifest("a: " + "[" * 30_000),
        Code.BAD_MANIFEST,
        "nests more than 8 levels",
    ),
    _bundle(
        "Python object",
        lambda: files.with_manifest("task: !!python/object/apply:os.system ['touch owned']"),
        Code.BAD_MANIFEST,
        "could not determine a constructor",
    ),
    _bundle(
        "manifest that is no text", lambda: files.with_manifest(b"\xff\xfe\x00"), Code.BAD_MANIFEST, "is not UTF-8 text"
    ),
)

_DATA = (
    _bundle("pickled objects", files.pickled, Code.BAD_DATA, "'x' of rows.npz holds Python objects"),
    _bundle("NPZ bomb", files.npz_bomb, Code.TOO_LARGE, "expands to 130000"),
    _bundle(
        "array that declares a terabyte",
        lambda: files.npz_of(
            {"x.npy": files.npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776, 3)}")}
        ),
        Code.BAD_DATA,
        "declares 13194139533312 bytes",
    ),
    _bundle(
        "array whose size overflows",
        lambda: files.npz_of(
            {"x.npy": files.npy("{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387904, 4)}")}
        ),
        Code.BAD_DATA,
        "more than the file holds",
    ),
    _bundle(
        "array header that calls",
        lambda: files.npz_of({"x.npy": files.npy("__import__('os').system('touch owned')")}),
        Code.BAD_DATA,
        "malformed node or string",
    ),
    _bundle("CSV of thousands of columns", files.csv_wide, Code.TOO_LARGE, "20000 columns"),
    _bundle("CSV that is no text", files.csv_binary, Code.BAD_DATA, "does not read as CSV"),
    Artifact(
        name="Parquet dictionary bomb",
        filename="b.zip",
        build=files.parquet_dictionary_bomb,
        check="data",
        said="'x' of the validation data is text",
    ),
    _bundle("Parquet of zeros", files.parquet_of_zeros, Code.TOO_LARGE, "expands to 640000000 bytes"),
    _bundle("Parquet of a long footer", files.parquet_of_a_long_footer, Code.BAD_DATA, "size reported by footer"),
)

CORPUS = (
    *(_DAMAGED_MODELS + _TENSORS + _GRAPHS + _GROWTH),
    *(_EXTERNAL + _ARCHIVES + _MANIFESTS + _DATA),
)


def build_all(folder: Path) -> None:
    """Write every artifact into a folder of its own, by its place in the corpus."""
    for number, artifact in enumerate(CORPUS):
        (folder / str(number)).mkdir()
        (folder / str(number) / "drop").write_bytes(artifact.build())
