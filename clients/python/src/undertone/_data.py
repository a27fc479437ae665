"""What all events and answers share."""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any


@dataclass(frozen=True)
class Data:
    """A frozen dataclass of plain Python values."""

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON has it: enums by their values, moments in ISO 8601; `event` is the class's name."""
        name = re.sub(r"(?<!^)(?=[A-Z])", "_", type(self).__name__).lower()
        return {"event": name, **_fields(self)}


def _fields(data: Data) -> dict[str, Any]:
    return {field.name: _plain(getattr(data, field.name)) for field in fields(data)}


def _plain(value: object) -> object:
    match value:
        case Data():
            return _fields(value)
        case enum.Enum():
            return value.value
        case datetime():
            return value.isoformat()
        case Mapping():
            return {_plain(key): _plain(item) for key, item in value.items()}
        case tuple():
            return [_plain(item) for item in value]
        case _:
            return value
