"""Files of what is no single feed's: YAML that an environment variable names."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import pydantic

from batch_pipelines.engine.errors import SettingsError
from batch_pipelines.engine.written_yaml import WrittenYamlError, read_yaml

if TYPE_CHECKING:
    from pathlib import Path

_Model = TypeVar("_Model", bound=pydantic.BaseModel)


def read_site_file(path: Path, model: type[_Model], variable: str, expected: str) -> _Model:
    """Read such a file.

    Args:
        path: The file.
        model: What it may say.
        variable: The variable that names it.
        expected: The model for people, as the rest of a sentence that begins with "is not".

    Returns:
        What it says; an empty file says nothing.

    Raises:
        SettingsError: The file cannot be used; it repeats no value.
    """
    try:
        return model.model_validate(read_yaml(path.read_text(encoding="utf-8")).data or {})
    except (OSError, UnicodeError):
        message = f"{variable}: {path} cannot be read as YAML."
        raise SettingsError(message) from None
    except WrittenYamlError as error:
        line = "" if error.line is None else f":{error.line}"
        message = f"{variable}: {path}{line} cannot be read as YAML: {error.what}"
        raise SettingsError(message) from None
    except pydantic.ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}"
            for problem in error.errors(include_input=False, include_url=False)
        )
        message = f"{variable}: {path} is not {expected}: {problems}."
        raise SettingsError(message) from None
