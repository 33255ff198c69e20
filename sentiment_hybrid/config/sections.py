"""Building blocks of the configuration: the base class of sections, and types of values."""

from __future__ import annotations

import codecs
import re
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator

# --- types of values -------------------------------------------------------------------------------------------------


def _as_text(value: Any) -> Any:
    """As labels or values of a column, the YAML numbers 0 and 4.0 are text."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | float) else value


def not_a_bool(value: Any) -> Any:
    """The value, unless it is a bool. Raises ValueError."""
    # Pydantic would accept true as 1.
    if isinstance(value, bool):
        raise ValueError("true and false are not numbers")
    return value


def _known_encoding(name: str) -> str:
    try:
        codecs.lookup("utf-8" if name == "auto" else name)
    except LookupError as error:
        raise ValueError(
            f"{name!r} is not an encoding that Python knows; common ones are utf-8, latin-1, cp1252, utf-16"
        ) from error
    return name


def _license(name: str) -> str:
    if not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", name.lower()):
        raise ValueError(f"{name!r} is no license identifier; common ones are apache-2.0, mit, cc-by-4.0, and other")
    return name.lower()


def _host(name: str) -> str:
    if not re.fullmatch(r"[\w.:-]+", name):
        raise ValueError(f"{name!r} is not a host name; write it without http:// and path, such as tweets.example.org")
    return name


def _listed(value: Any) -> Any:
    """One name is a list of one."""
    return (value,) if isinstance(value, str) else value


#: A label, or a value of a column: numbers are kept as they are written.
LabelText = Annotated[str, BeforeValidator(_as_text)]
#: A path in which ~ is the home directory.
HomePath = Annotated[Path, AfterValidator(Path.expanduser)]
Encoding = Annotated[str, AfterValidator(_known_encoding)]
#: As the Hub writes licenses: apache-2.0, cc-by-4.0, other.
LicenseId = Annotated[str, AfterValidator(_license)]
Names = Annotated[tuple[Annotated[str, Field(pattern=r"^[\w./-]+$")], ...], BeforeValidator(_listed)]
HostNames = Annotated[tuple[Annotated[str, AfterValidator(_host)], ...], BeforeValidator(_listed)]
Fraction = Annotated[float, Field(gt=0.0, lt=1.0)]
Dropout = Annotated[float, Field(ge=0.0, lt=1.0)]
Rate = Annotated[float, Field(gt=0.0, le=1.0)]
Epochs = Annotated[int, Field(ge=1, le=10_000)]
BatchSize = Annotated[int, Field(ge=1, le=65_536)]
Rows = Annotated[int, Field(ge=2, le=10**12)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Width = Annotated[int, Field(ge=4, le=4096)]
Layers = Annotated[int, Field(ge=1, le=8)]
AttentionHeads = Annotated[int, Field(ge=1, le=64)]
MaxLength = Annotated[int, Field(ge=8, le=8192)]
MaxWindows = Annotated[int, Field(ge=1, le=4096)]
TrainableLayers = Annotated[int, Field(ge=0, le=1000)] | Literal["all"]

#: Metrics on the validation split that can select the best epoch -> whether higher is better. `metrics.quick` has each.
METRICS = {"macro_f1": True, "accuracy": True, "loss": False}

if TYPE_CHECKING:
    Metric = str
else:
    Metric = Literal[tuple(METRICS)]


def default(value: Any, description: str, **bounds: Any) -> Any:
    """A field with its default, description and constraints."""
    return Field(value, description=description, **bounds)


def part(section: type[BaseModel], description: str) -> Any:
    """A section with its defaults, which are taken as they are: a test validates them."""
    return Field(section.model_construct(), description=description)


class Strict(BaseModel):
    """Frozen; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Section(Strict):
    """Base of every section."""

    def changed(self, values: Mapping[str, Any]) -> Self:
        """A copy with other values of settings, by dotted key; they are not validated."""
        update: dict[str, Any] = {}
        for key, value in values.items():
            name, _, below = key.partition(".")
            update[name] = update.get(name, getattr(self, name)).changed({below: value}) if below else value
        return self.model_copy(update=update)

    @field_validator("*", mode="before")
    @classmethod
    def _bools_are_not_numbers(cls, value: Any, info: ValidationInfo) -> Any:
        types = plain_types(cls.model_fields[info.field_name or ""].annotation)
        return value if bool in types or not {int, float} & types else not_a_bool(value)


def plain_types(annotation: Any) -> frozenset[Any]:
    """The types that an annotation is composed of."""
    inside = typing.get_args(annotation) if typing.get_origin(annotation) is not Literal else ()
    return frozenset({annotation}).union(*(plain_types(one) for one in inside)) if inside else frozenset({annotation})
