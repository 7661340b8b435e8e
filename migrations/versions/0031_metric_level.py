"""What is open now as a view, so that whoever scrapes needs no right but to read."""

from __future__ import annotations

from alembic import op

revision = "0031"
down_revision = "0030"

# Each part reads what is open now, by an index that has nothing else, or a table of a few rows.
UPGRADE = """
CREATE VIEW batch_audit.metric_level AS
SELECT 'alerts_open' AS metric, coalesce(feed, '') AS feed, ARRAY[severity] AS labels,
       count(*)::numeric AS value, max(raised_at) AS changed_at
FROM batch_audit.alert
WHERE severity <> 'info' AND acknowledged_at IS NULL AND resolved_at IS NULL GROUP BY 1, 2, 3
UNION ALL
SELECT 'alert_deliveries_waiting', '', ARRAY[channel], count(*), now()
FROM batch_audit.alert_delivery WHERE status = 'WAITING' GROUP BY channel
UNION ALL
SELECT 'leases', feed, ARRAY[CASE WHEN expires_at < now() THEN 'expired' ELSE 'held' END],
       count(*), max(acquired_at)
FROM batch_audit.batch_lease WHERE released_at IS NULL GROUP BY 2, 3
UNION ALL
SELECT 'feeds_paused', feed, '{}', 1, paused_at FROM batch_audit.feed_pause WHERE resumed_at IS NULL
UNION ALL
SELECT 'thresholds', CASE scope WHEN '*' THEN '' ELSE scope END, ARRAY[measure],
       array_position(ARRAY['ok', 'warn', 'breach'], state) - 1, now()
FROM batch_audit.threshold_state;
COMMENT ON VIEW batch_audit.metric_level IS
    'What is open now: alerts, deliveries, leases, pauses, thresholds; counts and states alone.';
"""


def upgrade() -> None:
    """Create the view."""
    op.execute(UPGRADE)


def downgrade() -> None:
    """Drop it."""
    op.execute("DROP VIEW batch_audit.metric_level")
