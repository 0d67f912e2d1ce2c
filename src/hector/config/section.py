"""What every section of the configuration has in common."""

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic.fields import FieldInfo


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, allow_inf_nan=False)

    strangers: ClassVar[Mapping[str, str]] = {}
    """Keys that somebody may look for here in vain, and what is said of them."""

    @classmethod
    def written_keys(cls) -> dict[str, FieldInfo]:
        """By what the operator writes, which some fields cannot be called in Python."""
        return {field.alias or name: field for name, field in cls.model_fields.items()}

    @model_validator(mode="before")
    @classmethod
    def _skip_empty_keys(cls, value: Any) -> Any:
        """`key:` with nothing after it counts as not written."""
        if not isinstance(value, Mapping):
            return value
        known = cls.written_keys()
        return {key: item for key, item in value.items() if item is not None or key not in known}
