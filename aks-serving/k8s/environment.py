#!/usr/bin/env python3
"""Fills an environment.yaml, of the overlay and of Flux's folder, with what a deployment of infra/bicep put out.

    az deployment sub show --name slipway-staging --query properties.outputs | aks-serving/k8s/environment.py staging

Changes the values of the keys that are there, and nothing else of a file; a key that the deployment does not tell
stays as it is, and is named. The certificate is the one called `slipway` in the deployment's vault. Needs Python alone.
"""

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path

OVERLAYS = Path(__file__).parent / "overlays"
GITOPS = Path(__file__).parents[1] / "gitops"
CERTIFICATE = "https://{vault}.vault.azure.net/certificates/slipway"
_LINE = re.compile(r"(?m)^  (?P<key>[A-Z_]+): (?P<value>\S+)$")
_VALUE = re.compile(r"[A-Za-z0-9:/._-]{1,512}")


def filled(text: str, outputs: Mapping[str, str]) -> tuple[str, list[str]]:
    """The file with the values, and the keys that nothing was told of.

    Raises ValueError for a value that cannot stand in the file as it is.
    """
    values = dict(outputs)
    if "VAULT_NAME" in values:
        values["CERTIFICATE_URI"] = CERTIFICATE.format(vault=values["VAULT_NAME"])
    missing = []

    def put(line: re.Match[str]) -> str:
        key = line["key"]
        if key not in values:
            missing.append(key)
            return line[0]
        if not _VALUE.fullmatch(values[key]):
            message = f"the output {key} is {values[key][:80]!r}: it holds what no name, id or address of Azure does"
            raise ValueError(message)
        return f"  {key}: {values[key]}"

    return _LINE.sub(put, text), missing


def outputs_of(text: str) -> dict[str, str]:
    """The outputs of a deployment as the Azure CLI prints them, by name. Raises ValueError for anything else."""
    told = json.loads(text)
    try:
        return {name: str(output["value"]) for name, output in told.items()}
    except (AttributeError, KeyError, TypeError) as error:
        message = "this is not what a deployment put out: use --query properties.outputs"
        raise ValueError(message) from error


def main(arguments: list[str]) -> int:
    """Fill the files of the environment that is named, all or none; an exit code."""
    names = sorted(path.parent.name for path in OVERLAYS.glob("*/environment.yaml"))
    if len(arguments) != 1 or arguments[0] not in names:
        sys.stderr.write(f"error: name one of {', '.join(names)}\n")
        return 2
    files = [folder / arguments[0] / "environment.yaml" for folder in (OVERLAYS, GITOPS)]
    try:
        outputs = outputs_of(sys.stdin.read())
        made = {file: filled(file.read_text("utf-8"), outputs) for file in files}
    except ValueError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    for file, (text, missing) in made.items():
        file.write_text(text, "utf-8")
        sys.stdout.write(f"{file}: still to be set by hand, where it is not yet: {', '.join(missing) or 'nothing'}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
