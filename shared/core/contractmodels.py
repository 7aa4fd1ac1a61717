"""Contracts as fields of pydantic models: read, refused and described as a model with the same fields would be.

A model of each is made the first time that one is asked for. It reads as pydantic does, and its errors name the field
within the whole document; what it read is then made the contract, which checks itself.
"""

from functools import cache, reduce
from operator import or_
from types import UnionType
from typing import Annotated, Any, Literal, TypeAliasType, Union, get_args, get_origin

import msgspec
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, GetCoreSchemaHandler, create_model
from pydantic_core import core_schema

from shared.core.contracts import Contract

_LIMITS = ("gt", "ge", "lt", "le", "min_length", "max_length")


def schema_of(contract: type[Contract], handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
    """What pydantic reads, writes and describes a contract by."""

    def read(given: object, read_model: core_schema.ValidatorFunctionWrapHandler) -> Contract:
        if isinstance(given, contract):
            return given
        found = read_model(contract.renamed(given))
        return contract(**{name: getattr(found, name) for name in contract.__struct_fields__})

    return core_schema.no_info_wrap_validator_function(
        read,
        handler.generate_schema(_model_of(contract)),
        serialization=core_schema.plain_serializer_function_ser_schema(contract.model_dump),
    )


@cache
def _model_of(contract: type[Contract]) -> type[BaseModel]:
    fields: dict[str, Any] = {
        field.name: (_annotation(field.type), _default(field)) for field in msgspec.structs.fields(contract)
    }
    return create_model(
        contract.__name__,
        __config__=ConfigDict(extra="forbid"),
        __doc__=contract.__doc__,
        __module__=contract.__module__,
        **fields,
    )


def _default(field: msgspec.structs.FieldInfo) -> Any:  # noqa: ANN401 - of any field
    if field.default_factory is not msgspec.NODEFAULT:
        return Field(default_factory=field.default_factory)
    return ... if field.default is msgspec.NODEFAULT else field.default


def _annotation(kind: Any) -> Any:  # noqa: ANN401 - any type of a field
    """A field's type with its limits as pydantic has them."""
    if isinstance(kind, TypeAliasType):
        return _alias(kind)
    origin, args = get_origin(kind), get_args(kind)
    if origin is Annotated:
        (meta,) = kind.__metadata__
        return AwareDatetime if meta.tz else Annotated[_annotation(args[0]), _limits(meta)]
    if origin is None or origin is Literal:
        return kind
    parts = tuple(map(_annotation, args))
    return reduce(or_, parts) if origin in (Union, UnionType) else origin[parts]


@cache
def _alias(alias: TypeAliasType) -> TypeAliasType:
    return TypeAliasType(alias.__name__, _annotation(alias.__value__))


def _limits(meta: msgspec.Meta) -> Any:  # noqa: ANN401 - what Field returns
    limits = {name: getattr(meta, name) for name in _LIMITS}
    # The end of a text is written otherwise than in Python, whose `$` a line's end may follow.
    pattern = meta.pattern.replace(r"\Z", "$") if meta.pattern else None
    return Field(pattern=pattern, **{name: limit for name, limit in limits.items() if limit is not None})
