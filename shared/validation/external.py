"""Tensors that a model keeps in files of their own: which ones, whether they are whole, and how they are loaded.

A location is a name out of a hostile file. Only a plain relative name that is a file of the drop is followed, and only
where the bytes that a tensor wants lie inside that file; the files themselves are never read here, however large.
"""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.registry.manifest import is_drop_path
from shared.validation.refusal import DropRefusedError, RefusalCode, excerpt
from shared.validation.tensorscan import bytes_of
from shared.validation.wire import ModelFiles

if TYPE_CHECKING:
    import onnx

_KEYS = frozenset({"location", "offset", "length", "checksum"})
"""What the format defines. A checksum is not looked at: the digests of whole files are what counts."""
_MAX_DIGITS = 18
_MAX_SIDES = 64
_MAX_SHARING = 2
"""Tensors may share bytes, as tied weights do. Together they may take this many times what the files hold."""
_FREE_BYTES = 16 * 1024 * 1024
_VALUES = ("float_data", "int32_data", "int64_data", "double_data", "uint64_data", "string_data")
_NO_LINKS = frozenset({errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.ENOTSUP})
_CHUNK_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ExternalTensor:
    """Where a tensor's values lie: `length` bytes from `offset` on in the file `location`."""

    name: str
    location: str
    offset: int
    length: int


def external_tensors(model: "onnx.ModelProto") -> list[ExternalTensor]:
    """The tensors that lie outside the model: in its graph, subgraphs, functions, attributes, sparse or not.

    Raises DropRefusedError where one does not say plainly where its values lie, and that these are as many as its
    shape has.
    """
    return [_placed(tensor) for tensor in _tensors(model) if tensor.data_location == 1 or tensor.external_data]


def external_files(model: "onnx.ModelProto") -> dict[str, list[tuple[int, int]]]:
    """The files that hold tensors of the model, with the offset and length of each. Raises as external_tensors does."""
    found: dict[str, list[tuple[int, int]]] = {}
    for tensor in external_tensors(model):
        found.setdefault(tensor.location, []).append((tensor.offset, tensor.length))
    return found


def check_external(model: "onnx.ModelProto", sizes: Mapping[str, int]) -> set[str]:
    """The names of the files that hold tensors; `sizes` has the files of the drop that may, in bytes.

    Raises DropRefusedError where a tensor lies outside of them, or only in part inside; where two tensors overlap
    without being the same bytes; and where they share bytes so often that the model would grow without bound.
    """
    tensors = external_tensors(model)
    for tensor in tensors:
        if tensor.location not in sizes:
            raise _bad(tensor.name, f"{excerpt(tensor.location, 100)!r} is no file of the drop that may hold tensors")
        if tensor.offset + tensor.length > sizes[tensor.location]:
            raise _bad(
                tensor.name,
                f"it wants {tensor.length} bytes from byte {tensor.offset} of {tensor.location!r}, which has "
                f"{sizes[tensor.location]}: the file is cut, or another one",
            )
    _check_overlaps(tensors)
    names = {tensor.location for tensor in tensors}
    wanted, held = sum(tensor.length for tensor in tensors), sum(sizes[name] for name in names)
    if wanted > _FREE_BYTES and wanted > _MAX_SHARING * held:
        raise DropRefusedError(
            RefusalCode.EXTERNAL_DATA,
            f"the tensors outside the model take {wanted} bytes, and their files hold {held}: tensors may share bytes, "
            f"up to {_MAX_SHARING} times in all",
        )
    return names


def link_external(model: ModelFiles, workdir: Path) -> Path:
    """The path from which ONNX Runtime can load a model with its external data.

    A model without such is left where it is, and so is one that was linked there before. Otherwise a new directory in
    `workdir` gets hard links under the names that the model knows (copies, where the file system has no links between
    the two places). The runtime refuses symbolic links that lead out of the model's directory; the ONNX checker refuses
    links of any kind, so it is not for what is made here. Raises DropRefusedError for a name that is no plain relative
    one.
    """
    if not model.external:
        return model.path
    names = {model.name: model.path, **model.external}
    for name in names:
        if not is_drop_path(name):
            raise DropRefusedError(RefusalCode.EXTERNAL_DATA, f"{excerpt(name, 60)!r} is no plain relative name")
    if len(names) != len(model.external) + 1:
        raise DropRefusedError(RefusalCode.EXTERNAL_DATA, f"{model.name!r} holds tensors and is the model itself")
    if _lie_under(names, workdir):
        return model.path
    root = Path(tempfile.mkdtemp(prefix="linked-", dir=workdir))
    for name, source in names.items():
        target = root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        _link(source, target)
    return root / model.name


def _lie_under(names: Mapping[str, Path], workdir: Path) -> bool:
    """Whether files lie under these names in one directory, which is in `workdir`."""
    (name, path), *_ = names.items()
    root = next((root for root in path.parents if root / name == path), None)
    return root is not None and root.is_relative_to(workdir) and all(root / name == names[name] for name in names)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source.resolve(), target)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        with source.open("rb") as content, target.open("xb") as copy:
            shutil.copyfileobj(content, copy, _CHUNK_BYTES)


def _tensors(model: "onnx.ModelProto") -> Iterator["onnx.TensorProto"]:
    """Every tensor in a message, wherever the format allows one, found by what the fields may hold."""
    bearing = _bearing(model.DESCRIPTOR)
    waiting: list[Any] = [model]
    while waiting:
        message = waiting.pop()
        if message.DESCRIPTOR.name == "TensorProto":
            yield message
            continue
        for field, value in message.ListFields():
            if field.message_type is not None and field.message_type.full_name in bearing:
                waiting += [value] if hasattr(value, "DESCRIPTOR") else list(value)


def _bearing(root: Any) -> frozenset[str]:  # noqa: ANN401 - protobuf's descriptors are not typed
    """The types of messages that are a tensor or may hold one, however deep."""
    children: dict[str, set[str]] = {}
    waiting = [root]
    while waiting:
        kind = waiting.pop()
        if kind.full_name not in children:
            below = [field.message_type for field in kind.fields if field.message_type is not None]
            children[kind.full_name] = {child.full_name for child in below}
            waiting += below
    bearing = {name for name in children if name.endswith(".TensorProto")}
    while more := {name for name, below in children.items() if below & bearing} - bearing:
        bearing |= more
    return frozenset(bearing)


def _placed(tensor: "onnx.TensorProto") -> ExternalTensor:
    entries: dict[str, str] = {}
    for entry in tensor.external_data:
        if entry.key not in _KEYS or entry.key in entries:
            raise _bad(tensor.name, f"its entry {excerpt(entry.key, 60)!r} is unknown or stands twice")
        entries[entry.key] = entry.value
    if tensor.data_location != 1 or tensor.HasField("raw_data") or any(getattr(tensor, name) for name in _VALUES):
        raise _bad(tensor.name, "it has values inside the model as well")
    location = entries.get("location", "")
    if not is_drop_path(location):
        raise _bad(tensor.name, f"its location {excerpt(location, 100)!r} is no plain relative name")
    length = _size_bytes(tensor)
    offset = _whole(tensor.name, "offset", entries.get("offset", "0"))
    if "length" in entries and (said := _whole(tensor.name, "length", entries["length"])) != length:
        raise _bad(tensor.name, f"it has {said} bytes there, and its shape {_shape(tensor)} takes {length}")
    return ExternalTensor(name=tensor.name, location=location, offset=offset, length=length)


def _size_bytes(tensor: "onnx.TensorProto") -> int:
    kind = tensor.data_type
    if kind in {tensor.UNDEFINED, tensor.STRING} or kind not in tensor.DataType.values():
        raise _bad(tensor.name, f"its type {kind} cannot lie outside the model")
    if len(tensor.dims) > _MAX_SIDES or any(dim < 0 for dim in tensor.dims):
        raise _bad(tensor.name, f"its shape {_shape(tensor)} has a negative side, or too many")
    return bytes_of(tensor.dims, kind)


def _whole(tensor: str, key: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS):
        raise _bad(tensor, f"its {key} {excerpt(text, 60)!r} is no number of bytes")
    return int(text)


def _check_overlaps(tensors: list[ExternalTensor]) -> None:
    """Ranges in order: one that begins inside the furthest before it must be that very range."""
    ordered = sorted((tensor for tensor in tensors if tensor.length), key=lambda t: (t.location, t.offset, t.length))
    furthest: ExternalTensor | None = None
    for tensor in ordered:
        if (
            furthest is None
            or tensor.location != furthest.location
            or tensor.offset >= furthest.offset + furthest.length
        ):
            furthest = tensor
        elif (tensor.offset, tensor.length) != (furthest.offset, furthest.length):
            raise _bad(
                tensor.name,
                f"its bytes in {tensor.location!r} overlap with those of {excerpt(furthest.name, 60)!r}",
            )


def _shape(tensor: "onnx.TensorProto") -> str:
    return excerpt(list(tensor.dims), 60)


def _bad(tensor: str, why: str) -> DropRefusedError:
    return DropRefusedError(
        RefusalCode.EXTERNAL_DATA, f"the tensor {excerpt(tensor, 60)!r} lies in a file of its own: {why}"
    )
