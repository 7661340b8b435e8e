"""YAML that people have written: one reader, with the same limits, for feeds, channels and thresholds.

Not here: what such a file may say.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import yaml

if TYPE_CHECKING:
    from collections.abc import Sequence

# A feed of a thousand columns with rules is a tenth of it.
LARGEST: Final = 1_000_000
"""Characters that a file may have."""
# Lists of aliases of lists of aliases: a file of ten lines can stand for a billion values.
MOST_VALUES: Final = 100_000
"""Values that a file may stand for when every alias is written out."""


class WrittenYamlError(Exception):
    """A text is no YAML, or none that anybody would write.

    Attributes:
        line: Where, counted from 1; None where that is not known.
        what: What is wrong and what to do, as a sentence; it repeats no value.
    """

    def __init__(self, what: str, line: int | None = None) -> None:
        super().__init__(what)
        self.line, self.what = line, what


@dataclass(frozen=True)
class Written:
    """A text that was read.

    Attributes:
        data: What it says.
        root: Its tree, which knows the lines.
    """

    data: Any
    root: yaml.Node | None


def read_yaml(text: str) -> Written:
    """Read a text, and refuse what only a mistake or malice would write.

    Args:
        text: The text.

    Returns:
        What it says, with the places where it says so.

    Raises:
        WrittenYamlError: It is no YAML, too large, too deep, has aliases without end,
            or a key twice.
    """
    if len(text) > LARGEST:
        raise WrittenYamlError(
            f"has {len(text):,} characters, where {LARGEST:,} are enough. Is it the right file?"
        )
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        _require_finite(root)
        _require_single_keys(root)
        return Written(yaml.safe_load(text), root)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or "not YAML"
        what = f"{problem}. Check indentation, quotes and colons there."
        raise WrittenYamlError(what, mark.line + 1 if mark else 1) from None
    except RecursionError:
        what = "nests deeper than any feed does. Check its brackets and indentation."
        raise WrittenYamlError(what) from None
    except ValueError as error:
        # What looks like a date or a number, and is none.
        what = f"holds a value that is not what it looks like ({error}). Put it in quotes."
        raise WrittenYamlError(what) from None


def line_of(node: yaml.Node | None, loc: Sequence[int | str]) -> int:
    """Follow pydantic's location through a tree, as far as it goes; give the line, counted from 1."""
    line = node.start_mark.line + 1 if node is not None else 1
    for step in loc:
        if isinstance(node, yaml.MappingNode):
            found = next(((k, v) for k, v in node.value if k.value == step), None)
            if found is None:
                return line
            line, node = found[0].start_mark.line + 1, found[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int):
            node = node.value[step]
            line = node.start_mark.line + 1 if node is not None else line
    return line


def _require_finite(root: yaml.Node | None) -> None:
    sizes: dict[yaml.Node, int] = {}
    above: set[yaml.Node] = set()

    def size(node: yaml.Node) -> int:
        """Count the values that a node stands for, each node once."""
        if node in above:
            what = "what begins here holds an alias of itself; write the value out in its place."
            raise WrittenYamlError(what, node.start_mark.line + 1)
        if node not in sizes:
            above.add(node)
            sizes[node] = 1 + sum(size(child) for child in _children(node))
            above.discard(node)
        return sizes[node]

    if root is not None and size(root) > MOST_VALUES:
        what = (
            f"stands for more than {MOST_VALUES:,} values, by aliases of aliases. Write them out."
        )
        raise WrittenYamlError(what)


def _require_single_keys(root: yaml.Node | None) -> None:
    waiting = [] if root is None else [root]
    seen: set[yaml.Node] = set()
    while waiting:
        node = waiting.pop(0)
        if node in seen:  # several aliases may refer to it
            continue
        seen.add(node)
        waiting[:0] = _children(node)
        keys: set[str] = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if not isinstance(key, yaml.ScalarNode):
                what = "a name before `:` must be a word, and here stands a list or a mapping."
                raise WrittenYamlError(what, key.start_mark.line + 1)
            if key.value in keys:
                what = f"`{key.value}` stands twice; keep one."
                raise WrittenYamlError(what, key.start_mark.line + 1)
            keys.add(str(key.value))


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [value for _, value in node.value]
    return [*node.value] if isinstance(node, yaml.SequenceNode) else []
