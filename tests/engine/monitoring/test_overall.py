"""How all feeds together are watched is said in a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from batch_pipelines.engine.errors import SettingsError
from batch_pipelines.engine.monitoring.overall import DEFAULT, read_overall

if TYPE_CHECKING:
    from pathlib import Path


def test_without_a_file_there_is_a_default(tmp_path: Path) -> None:
    assert read_overall(None) == DEFAULT
    path = tmp_path / "monitor.yaml"
    path.write_text("over: 24h\nfailed_in_a_row: {breach: 7}\nchannels: operations\n")
    found = read_overall(path)
    assert (found.over, found.levels["failed_in_a_row"].breach) == ("24h", 7)
    assert found.channels == ("operations",)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "cannot be read as YAML"),
        ("a: [", "cannot be read as YAML"),
        (
            "over: &all [*all]",
            ":1 cannot be read as YAML: what begins here holds an alias of itself",
        ),
        ("over: 24h\nover: 1h", ":2 cannot be read as YAML: `over` stands twice"),
        ("over: often", "is not what `monitor` of a feed may be: over"),
        ("on_breach: pause", "a breach is told and nothing else"),
        ("throughput_drop: {warn: 50%}", "a breach is told and nothing else"),
    ],
)
def test_a_file_that_cannot_be_used(tmp_path: Path, text: str | None, said: str) -> None:
    path = tmp_path / "monitor.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(SettingsError, match=f"BATCH_PIPELINES_MONITOR: .*{said}"):
        read_overall(path)
