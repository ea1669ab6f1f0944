"""Changed copies of settings."""

from typing import Any, TypeVar

from evaluation.settings.schema import Section

Some = TypeVar("Some", bound=Section)


def settings_with(settings: Some, **changes: Any) -> Some:
    """Returns a validated copy with changes; "nd__steps" stands for nd.steps."""
    content = settings.model_dump()
    for name, value in changes.items():
        section, _, field = name.rpartition("__")
        (content[section] if section else content)[field] = value
    return type(settings)(**content)
