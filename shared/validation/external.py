"""Tensors that a model keeps in files of their own: which ones, whether they are whole, and how they are loaded.

A location is a name out of a hostile file. Only a plain relative name that is a file of the drop is followed, and only
where the bytes that a tensor wants lie inside that file; the files themselves are never read here, however large.
"""

import errno
import os
import shutil
import tempfile
from pathlib import Path

from shared.registry.manifest import is_drop_path
from shared.validation.refusal import DropRefusedError, RefusalCode, excerpt
from shared.validation.wire import ModelFiles

_NO_LINKS = frozenset({errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.ENOTSUP})
_CHUNK_BYTES = 1024 * 1024


def link_external(model: ModelFiles, workdir: Path) -> Path:
    """The path from which ONNX Runtime can load a model with its external data.

    A model without such is left where it is. Otherwise a new directory in `workdir` gets hard links under the names
    that the model knows (copies, where the file system has no links between the two places). The runtime refuses
    symbolic links that lead out of the model's directory; the ONNX checker refuses links of any kind, so it is not for
    what is made here. Raises DropRefusedError for a name that is no plain relative one.
    """
    if not model.external:
        return model.path
    names = {model.name: model.path, **model.external}
    for name in names:
        if not is_drop_path(name):
            raise _bad(f"{excerpt(name, 60)!r} is no plain relative name")
    if len(names) != len(model.external) + 1:
        raise _bad(f"{model.name!r} is the model itself")
    root = Path(tempfile.mkdtemp(prefix="linked-", dir=workdir))
    for name, source in names.items():
        target = root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        _link(source, target)
    return root / model.name


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source.resolve(), target)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        with source.open("rb") as content, target.open("xb") as copy:
            shutil.copyfileobj(content, copy, _CHUNK_BYTES)


def _bad(why: str) -> DropRefusedError:
    return DropRefusedError(RefusalCode.EXTERNAL_DATA, f"a tensor of the model lies in a file of its own: {why}")
