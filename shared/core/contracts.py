"""What the two planes tell each other: route plans, telemetry windows, reference profiles.

A contract is a msgspec Struct, so that a server reads and writes it without pydantic, whose core and schemas would cost
every worker 10 MB and a tenth of a second. It is read strictly: what is unknown, of another type or out of bounds is
refused by msgspec.ValidationError, a ValueError, with what was wanted and where. What is made in code is checked alike,
at once. Its methods are called as those of the control plane's own documents, which are pydantic models and may have
contracts as fields (shared.core.contractmodels): nothing here imports pydantic before such a model asks.
"""

import sys
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from copy import copy
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import msgspec
from msgspec import Meta

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler
    from pydantic_core import CoreSchema

type Count = Annotated[int, Meta(ge=0)]
type Finite = Annotated[float, Meta(ge=-sys.float_info.max, le=sys.float_info.max)]
"""Neither infinite nor NaN, which JSON has not."""
type Aware = Annotated[datetime, Meta(tz=True)]
"""A time that says its zone."""
type Number = Annotated[int, Meta(ge=1, le=2**53 - 1)]
"""A whole number from 1 to the last that every reader of JSON tells from the next."""
type First = Annotated[int, Meta(ge=1, le=1)]
"""The version of a schema that never changed."""


class Contract(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A document that one plane writes and the other reads."""

    def __post_init__(self) -> None:
        """Check and take over what was given. Raises ValidationError."""
        given = {name: getattr(self, name) for name in self.__struct_fields__}
        checked = msgspec.convert(given, _fields_of(type(self)), str_keys=True)
        for name in given:
            msgspec.structs.force_setattr(self, name, getattr(checked, name))

    @classmethod
    def model_validate(cls, given: object) -> Self:
        """Read values as JSON has them, or an instance, which is passed on. Raises ValidationError."""
        return msgspec.convert(cls.renamed(given), cls, str_keys=True)

    @classmethod
    def model_validate_json(cls, data: bytes | str) -> Self:
        """Read JSON. Raises ValidationError."""
        try:
            return cls.decoded(data)
        except RecursionError as error:
            raise msgspec.ValidationError("it is nested too deep") from error

    @classmethod
    def decoded(cls, data: bytes | str) -> Self:
        """Read JSON. Raises ValidationError, and RecursionError for what is nested too deep."""
        return msgspec.json.decode(data, type=cls)

    @classmethod
    def renamed(cls, given: object) -> object:
        """Values that an older release wrote, as they are called and counted now."""
        return given

    def model_dump_json(self) -> str:
        """As JSON, without spaces."""
        return msgspec.json.encode(self, enc_hook=str).decode()

    def model_dump(
        self, *, mode: Literal["json", "python"] = "python", include: AbstractSet[str] | None = None
    ) -> dict[str, Any]:
        """As JSON has it, whatever the mode."""
        del mode
        found: dict[str, Any] = msgspec.json.decode(self.model_dump_json())
        return {name: value for name, value in found.items() if include is None or name in include}

    def model_copy(self, *, update: Mapping[str, Any] | None = None) -> Self:
        """A copy with other values, unchecked: a part of a plan need not be a plan that may be published."""
        found = copy(self)
        for name, value in (update or {}).items():
            msgspec.structs.force_setattr(found, name, value)
        return found

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: object, handler: "GetCoreSchemaHandler") -> "CoreSchema":
        from shared.core.contractmodels import schema_of  # noqa: PLC0415

        return schema_of(cls, handler)


@cache
def _fields_of(contract: type[Contract]) -> type[msgspec.Struct]:
    """The fields alone: what they may hold is checked by reading them from Python."""
    fields = [(field.name, field.type) for field in msgspec.structs.fields(contract)]
    return msgspec.defstruct(contract.__name__, fields, kw_only=True)
