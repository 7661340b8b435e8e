"""Feed files: YAML read into feeds, with errors that name file, line and remedy."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

import pydantic
import yaml

from batch_pipelines.engine.contract import Contract
from batch_pipelines.engine.errors import FeedError
from batch_pipelines.engine.feed_parts.archiving import Archiving
from batch_pipelines.engine.feed_parts.compliance import Compliance
from batch_pipelines.engine.feed_parts.source import Source
from batch_pipelines.engine.feed_parts.table import Table
from batch_pipelines.engine.feeds import Feed
from batch_pipelines.engine.formats import Format
from batch_pipelines.engine.loaded import Batches
from batch_pipelines.engine.queries import Query
from batch_pipelines.engine.rules import Among, Matches, Range, References, Rule

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from pathlib import Path

    from pydantic_core import ErrorDetails


def load_feed(path: Path) -> Feed:
    """Read and check one feed file.

    Args:
        path: The YAML file.

    Returns:
        The feed.

    Raises:
        FeedError: It cannot be read or breaks the model: a line `file:line: what, remedy` each.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        message = f"{path}: cannot be read as UTF-8 text ({type(error).__name__})."
        raise FeedError(message) from None
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else 1
        problem = getattr(error, "problem", None) or "not YAML"
        message = f"{path}:{line}: {problem}. Check indentation, quotes and colons there."
        raise FeedError(message) from None
    except RecursionError:
        message = f"{path}: nests deeper than any feed does. Check its brackets and indentation."
        raise FeedError(message) from None
    except ValueError as error:
        # What looks like a date or a number, and is none.
        message = (
            f"{path}: holds a value that is not what it looks like ({error}). Put it in quotes."
        )
        raise FeedError(message) from None
    recursive = _recursive(root)
    if recursive is not None:
        message = (
            f"{path}:{recursive.start_mark.line + 1}: what begins here holds an alias of itself; "
            "write the value out in its place."
        )
        raise FeedError(message)
    doubled = _doubled_key(root)
    if doubled is not None:
        message = f"{path}:{doubled.start_mark.line + 1}: `{doubled.value}` stands twice; keep one."
        raise FeedError(message)
    try:
        return Feed.model_validate(data)
    except pydantic.ValidationError as error:
        problems = error.errors(include_url=False)
        wrong_inside = {problem["loc"][:1] for problem in problems if len(problem["loc"]) > 1}
        lines = [
            f"{path}:{_line(root, problem['loc'])}: {_explain(problem)}"
            for problem in problems
            # A list whose entries are all wrong counts as empty, too; that is no second problem.
            if problem["type"] != "too_short" or problem["loc"] not in wrong_inside
        ]
        raise FeedError("\n".join(lines)) from None


def load_feeds(folder: Path) -> dict[str, Feed]:
    """Read all feed files of a folder.

    Args:
        folder: The folder; its `*.yaml` and `*.yml` are read.

    Returns:
        The feeds by name, sorted.

    Raises:
        FeedError: The folder is missing, or any file is wrong; every file's problems are listed.
    """
    if not folder.is_dir():
        message = f"{folder}: no such folder. Set BATCH_PIPELINES_FEEDS to the folder of the feeds."
        raise FeedError(message)
    feeds: dict[str, tuple[Feed, Path]] = {}
    problems: list[str] = []
    for path in sorted(p for p in folder.iterdir() if p.suffix in {".yaml", ".yml"}):
        try:
            feed = load_feed(path)
        except FeedError as error:
            problems.append(str(error))
            continue
        if feed.feed in feeds:
            other = feeds[feed.feed][1].name
            problems.append(f"{path}:1: feed {feed.feed} stands in {other} too; rename one.")
        feeds[feed.feed] = (feed, path)
    if problems:
        raise FeedError("\n".join(problems))
    return {name: feeds[name][0] for name in sorted(feeds)}


def place_of(folder: Path, feed: str, loc: Sequence[int | str]) -> str | None:
    """Say where something of a feed stands.

    Args:
        folder: The folder of the feeds.
        feed: The feed's name.
        loc: Keys and indexes that lead to it.

    Returns:
        `file:line`, or None where no file of the folder holds that feed.
    """
    for path in sorted(p for p in folder.glob("*") if p.suffix in {".yaml", ".yml"}):
        root = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
        if isinstance(root, yaml.MappingNode) and any(
            key.value == "feed" and value.value == feed for key, value in root.value
        ):
            return f"{path}:{_line(root, loc)}"
    return None


def find_feed(feeds: Mapping[str, Feed], name: str) -> Feed:
    """Look a feed up by name.

    Args:
        feeds: All feeds by name.
        name: The name asked for.

    Returns:
        The feed.

    Raises:
        FeedError: There is none; the nearest name is suggested.
    """
    if name in feeds:
        return feeds[name]
    near = difflib.get_close_matches(name, feeds, n=1)
    hint = f"Did you mean {near[0]}?" if near else f"There are: {', '.join(feeds) or 'none'}."
    message = f"There is no feed {name}. {hint}"
    raise FeedError(message)


def _doubled_key(node: yaml.Node | None) -> yaml.ScalarNode | None:
    for parent in _walk(node):
        if isinstance(parent, yaml.MappingNode):
            seen: set[str] = set()
            for key, _ in parent.value:
                if key.value in seen:
                    return key  # type: ignore[no-any-return]  # PyYAML's stubs: Node
                seen.add(str(key.value))
    return None


def _recursive(root: yaml.Node | None) -> yaml.Node | None:
    """Find a node that an alias below it refers to."""
    done: set[yaml.Node] = set()

    def search(node: yaml.Node, above: tuple[yaml.Node, ...]) -> yaml.Node | None:
        if node in above:
            return node
        if node not in done:
            done.add(node)
            for child in _children(node):
                if found := search(child, (*above, node)):
                    return found
        return None

    return None if root is None else search(root, ())


def _walk(root: yaml.Node | None) -> Iterator[yaml.Node]:
    """Go through a tree; what several aliases refer to is visited once."""
    waiting = [] if root is None else [root]
    seen: set[yaml.Node] = set()
    while waiting:
        node = waiting.pop(0)
        if node not in seen:
            seen.add(node)
            yield node
            waiting[:0] = _children(node)


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [value for _, value in node.value]
    return [*node.value] if isinstance(node, yaml.SequenceNode) else []


def _line(node: yaml.Node | None, loc: Sequence[int | str]) -> int:
    """Follow pydantic's location through the YAML tree, as far as it goes."""
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


_KNOWN: Mapping[tuple[str, ...], Collection[str]] = {
    (): Feed.model_fields,
    ("source",): Source.model_fields,
    ("source", "query"): Query.model_fields,
    ("source", "batches"): Batches.model_fields,
    ("tables",): Table.model_fields,
    ("format",): Format.model_fields,
    ("contract",): Contract.model_fields,
    ("archive",): Archiving.model_fields,
    ("compliance",): Compliance.model_fields,
    ("tables", "contract"): Contract.model_fields,
    ("tables", "rules"): [each.alias or name for name, each in Rule.model_fields.items()],
    ("tables", "rules", "range"): Range.model_fields,
    ("tables", "rules", "in"): Among.model_fields,
    ("tables", "rules", "matches"): Matches.model_fields,
    ("tables", "rules", "references"): References.model_fields,
}


# In the words of YAML, where pydantic's are those of Python; by the type of the problem.
_EXPECTED = {
    "model_type": "must hold lines of the form `name: value`",
    "tuple_type": "must be a list: a line for each entry, beginning with `- `",
    "too_short": "needs at least one entry",
    "string_type": "must be text; put it in quotes",
}
# What a pattern means, by the name of the field.
_FORMS = {
    "feed": "must be a word of lower-case letters, digits and `_`, beginning with a letter",
    "name": "must be a word of lower-case letters, digits and `_`, beginning with a letter",
    "table": "must be a table with its schema, as in `public.flights`",
    "url_variable": (
        "must be the name of an environment variable, of capitals, digits and `_`; "
        "the URL is a secret and stands in that variable alone"
    ),
}


def _explain(problem: ErrorDetails) -> str:
    loc = problem["loc"]
    name = ".".join(str(step) for step in loc) or "the file"
    if problem["type"] == "extra_forbidden":
        known = _KNOWN.get(tuple(s for s in loc[:-1] if isinstance(s, str)), {})
        near = difflib.get_close_matches(str(loc[-1]), known, n=1)
        hint = f"did you mean `{near[0]}`?" if near else f"known here: {', '.join(known)}."
        return f"`{name}` is not known; {hint}"
    if problem["type"] == "missing":
        return f"`{name}` is missing; add it."
    if problem["type"] == "string_pattern_mismatch":
        return f"`{name}` {_FORMS[str(loc[-1])]}."
    if problem["type"] in _EXPECTED:
        return f"`{name}` {_EXPECTED[problem['type']]}."
    return f"`{name}`: {problem['msg'].removeprefix('Value error, ')}."
