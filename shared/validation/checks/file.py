"""What a model's file shows before it is loaded: its size, its operators, its versions. Pure; loads onnx."""

import onnx

from shared.core.verdict import Outcome, Verdict
from shared.registry.policy import ValidationPolicy
from shared.validation.checks.verdicts import failed, passed
from shared.validation.graph import RUNTIME_DOMAINS, foreign_operator, unsupported_version
from shared.validation.refusal import excerpt


def size(size_bytes: int, policy: ValidationPolicy) -> Verdict:
    """Are the model's file and its external data within the policy's limit?"""
    limit = policy.max_size_bytes
    outcome, compared = (Outcome.PASS, "within") if size_bytes <= limit else (Outcome.FAIL, "above")
    return Verdict(
        check="size",
        outcome=outcome,
        sentence=f"the model has {size_bytes} bytes, {compared} the limit of {limit}",
        value=size_bytes,
        limit=limit,
    )


def operators(model: onnx.ModelProto) -> Verdict:
    """Does a model that the ONNX checker passed use versions and operators that the server's runtime has?"""
    foreign = foreign_operator(model)
    if foreign is not None:
        known = ", ".join(sorted(domain for domain in RUNTIME_DOMAINS if domain))
        return failed("onnx", f"the operator {excerpt(foreign, 100)} is a custom one: use operators of {known}")
    unsupported = unsupported_version(model)
    if unsupported is not None:
        return failed("onnx", f"the runtime does not take it: {unsupported}")
    listed = ", ".join(f"{domain} {version}" for domain, version in sorted(opsets(model).items()))
    return passed("onnx", f"a valid ONNX model of IR version {model.ir_version}, opset {listed}")


def opsets(model: onnx.ModelProto) -> dict[str, int]:
    """The version of each operator domain that the model imports."""
    return {excerpt(entry.domain, 60) or "ai.onnx": entry.version for entry in model.opset_import}
