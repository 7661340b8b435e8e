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
from batch_pipelines.engine.written_yaml import WrittenYamlError, line_of, read_yaml

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

    from pydantic_core import ErrorDetails

JOBS_OF_ALL = frozenset(
    {
        "rollback", "restore", "retention", "erasure", "rerun_failed", "verify_batches",
        "verify_archive", "verify_audit", "compliance_report_month",
    }
)  # fmt: skip
"""Names of the jobs that are there for all feeds; a feed's own job has its name."""
_REPLAY = "_replay"


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
        written = read_yaml(text)
    except WrittenYamlError as error:
        line = "" if error.line is None else f":{error.line}"
        message = f"{path}{line}: {error.what}"
        raise FeedError(message) from None
    root = written.root
    try:
        return Feed.model_validate(written.data)
    except pydantic.ValidationError as error:
        problems = error.errors(include_url=False)
        wrong_inside = {problem["loc"][:1] for problem in problems if len(problem["loc"]) > 1}
        lines = [
            f"{path}:{line_of(root, problem['loc'])}: {_explain(problem)}"
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
    for feed, path in feeds.values():
        name = feed.feed
        if name in JOBS_OF_ALL or name.removesuffix(_REPLAY) in feeds.keys() - {name}:
            problems.append(
                f"{path}:1: a feed cannot be named {name}: Dagster has another job of that name. "
                "Rename the feed."
            )
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
            return f"{path}:{line_of(root, loc)}"
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
