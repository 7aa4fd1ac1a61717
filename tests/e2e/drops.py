"""A folder drop with real data: its files, the manifest first, which is the hardest order."""

import hashlib
import io
import zipfile

from tests.support.models import bundle


def folder_files(model: bytes) -> dict[str, bytes]:
    """The files of a folder drop of a model, with the validation data of its bundle."""
    with zipfile.ZipFile(io.BytesIO(bundle(model))) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    named = files.pop("slipway.yaml").decode() + "files:\n"
    named += "".join(f"  {name}: {hashlib.sha256(data).hexdigest()}\n" for name, data in files.items())
    return {"slipway.yaml": named.encode(), **files}
