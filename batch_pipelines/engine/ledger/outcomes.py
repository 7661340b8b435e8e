"""How a batch went, whatever became of it since."""

from __future__ import annotations

from typing import Final

OUTCOME: Final = """
CASE WHEN status NOT IN ('SUPERSEDED', 'ARCHIVED') THEN status
     WHEN status_before <> 'ARCHIVED' THEN status_before
     WHEN rejected_records > 0 THEN 'PARTIAL_SUCCESS'
     ELSE 'SUCCESS' END
"""
"""Of a row of `import_history`: a superseded or archived batch went as well as it had before that.

Where only its time in the archive is known of before, it had been validated: nothing else comes there.
"""
