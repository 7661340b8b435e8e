"""Whatever people write as YAML is read with the same limits."""

from __future__ import annotations

import pytest

from batch_pipelines.engine.written_yaml import LARGEST, WrittenYamlError, line_of, read_yaml

ALIASES = "\n".join(
    ["a0: &a0 [x]", *(f"a{n}: &a{n} [{f'*a{n - 1}, ' * 10}]" for n in range(1, 10))]
)


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        pytest.param("a: [", 1, "Check indentation, quotes and colons there", id="no YAML"),
        pytest.param("a: *none", 1, "undefined alias", id="an alias of nothing"),
        pytest.param("a: 1\nb: &b {c: *b}", 2, "holds an alias of itself", id="without end"),
        pytest.param(ALIASES, None, "stands for more than 100,000 values", id="aliases of aliases"),
        pytest.param("[" * 5000, None, "nests deeper than any feed does", id="deep"),
        pytest.param("x" * (LARGEST + 1), None, "1,000,001 characters", id="large"),
        pytest.param("day: 2026-13-41", None, "is not what it looks like", id="no date"),
        pytest.param("a: 1\nb: {c: 1, c: 2}", 2, "`c` stands twice", id="a key twice"),
        pytest.param("!!python/object:os.system {}", 1, "could not determine", id="code"),
    ],
)
def test_what_only_a_mistake_or_malice_would_write_is_refused(
    text: str, line: int | None, said: str
) -> None:
    with pytest.raises(WrittenYamlError) as error:
        read_yaml(text)
    assert error.value.line == line
    assert said in error.value.what


def test_what_is_written_is_read_with_its_places() -> None:
    written = read_yaml("a: &one {b: 1}\nc:\n- *one\n- 2026-01-02\n")
    assert written.data["c"][0] == written.data["a"] == {"b": 1}
    assert line_of(written.root, ("c", 1)) == 4
    assert read_yaml("").data is None
