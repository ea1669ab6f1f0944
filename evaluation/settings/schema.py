"""Base class of settings, types with value ranges, and whether a setting changes the result. Imports no torch."""

import unicodedata
from collections.abc import Callable, Container, Iterator, Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from evaluation.errors import EvaluationError
from evaluation.settings.mistakes import explain


def _text(most: int, forbidden: str, expected: str) -> Callable[[str], str]:
    """Returns a validator of text: its length, and no forbidden or control characters or lone surrogates."""

    def check(text: str) -> str:
        odd = any(letter in forbidden or unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in text)
        if odd or len(text) > most or text in (".", ".."):
            raise ValueError(f"{expected} of at most {most} characters")
        return text

    return check


def key_of(names: Container[str] | Mapping[str, Any]) -> AfterValidator:
    """Returns a validator that accepts one of the names."""

    def check(text: str) -> str:
        if text not in names:
            raise ValueError(" or ".join(map(repr, names)))  # type: ignore[arg-type]
        return text

    return AfterValidator(check)


def _whole(value: object) -> object:
    if isinstance(value, bool | float):
        raise ValueError("a whole number")
    return value


WHOLE = BeforeValidator(_whole)
"""Refuses 32.0 and true, which equal numbers of a Literal, as other whole numbers do."""

MOST_IMAGES = 10**7

READ_BY_OWN: set[tuple[str, str, str]] = set()
"""(setting, other, name): imported code reads `setting` if `other` is the name that it registered."""

Probability = Annotated[float, Field(ge=0, lt=1)]
Factor = Annotated[float, Field(ge=0, le=1e6)]
Count = Annotated[int, Field(ge=1, lt=2**31)]
Interval = Annotated[int, Field(ge=0, lt=2**31)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
# Upper bounds refuse absurd sizes at once, before memory runs out minutes later.
Width = Annotated[int, Field(ge=1, le=4096)]
Size = Annotated[int, Field(ge=1, le=2**16)]
Few = Annotated[int, Field(ge=1, le=1000)]
Images = Annotated[int, Field(ge=0, le=MOST_IMAGES)]
Draws = Annotated[int, Field(ge=1, le=MOST_IMAGES)]
Text = Annotated[str, AfterValidator(_text(4096, "", "one line"))]
Name = Annotated[str, AfterValidator(_text(100, "/\\", "a name without slashes"))]


def without_effect(default: Any, description: str) -> Any:
    """Declares a setting that does not change the result, such as an interval, a path or a title."""
    return Field(default=default, description=description, json_schema_extra={"effect": False})


def setting(default: Any, description: str, *, only_if: Mapping[str, Container[Any]] | None = None) -> Any:
    """Declares a setting that changes the result.

    Args:
        only_if: other settings of the section, each with a list of values. The declared setting affects the result only
            if one of them has a listed value; otherwise it is accepted and ignored.
    """
    extra: Any = {"only_if": only_if} if only_if else None
    return Field(default=default, description=description, json_schema_extra=extra)


def optional(description: str, *, only_if: Mapping[str, Container[Any]] | None = None, same_as: object = None) -> Any:
    """Declares a setting that changes the result unless it is None, the default; identities then omit it.

    Args:
        same_as: value that means the same as None; identities omit it, too.
    """
    extra: Any = {"only_if": only_if, "unset": (None, same_as)}
    return Field(default=None, description=description, json_schema_extra=extra)


class Section(BaseModel):
    """Base class of settings: strict, frozen, without unknown names or values that are not finite.

    Raises:
        EvaluationError: a value out of range; also raised for values of nested sections.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    def __init__(self, **given: Any) -> None:
        try:
            super().__init__(**given)
        except ValidationError as error:
            raise EvaluationError(explain(type(self), error, places(type(self)))) from None

    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]  # otherwise pydantic calls __init__ for nested sections


def places(kind: type[BaseModel]) -> list[str]:
    """Returns the dotted names of all settings, such as "nd.steps"."""
    return [place for place, _, _ in leaves(kind())]


def leaves(section: BaseModel, prefix: str = "") -> Iterator[tuple[str, bool, Any]]:
    """Yields (place, whether it changes the result, value) of every setting, in order."""
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", has_effect(section, name), value


def has_effect(section: BaseModel, name: str) -> bool:
    """Whether a setting changes the result, given the other settings of its section."""
    extra = type(section).model_fields[name].json_schema_extra
    found: Mapping[str, Any] = extra if isinstance(extra, Mapping) else {}
    only_if = found.get("only_if")
    chosen = only_if is None or any(
        (value := getattr(section, other, None)) in values or (name, other, value) in READ_BY_OWN
        for other, values in only_if.items()
    )
    unset: Container[Any] = found.get("unset", ())
    return bool(found.get("effect", True) and chosen and getattr(section, name) not in unset)
