"""Metrics: counters that only go up, kept as batches change, and what the server spent on each."""

from __future__ import annotations

from alembic import op

revision = "0022"
down_revision = "0021"

# A change is a row of its own and not an update of the total: batches that are published at once wait
# for nobody. Whoever folds them in takes them away in the same statement, so none counts twice.
TABLES = """
CREATE TABLE batch_audit.metric_change (
    metric text NOT NULL,
    feed text NOT NULL,
    labels text[] NOT NULL,
    value numeric NOT NULL,
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE batch_audit.metric_change IS
    'What metrics have changed by since they were last folded into metric_total.';
CREATE TABLE batch_audit.metric_total (
    metric text NOT NULL,
    feed text NOT NULL,
    labels text[] NOT NULL,
    value numeric NOT NULL,
    changed_at timestamptz NOT NULL,
    PRIMARY KEY (metric, feed, labels)
);
COMMENT ON TABLE batch_audit.metric_total IS
    'Metrics, but for the changes in metric_change; the view metric has both.';
COMMENT ON COLUMN batch_audit.metric_total.feed IS 'The feed; empty where it is about the whole.';
COMMENT ON COLUMN batch_audit.metric_total.labels IS
    'What else tells its values apart: states, stages, verdicts; never an id of a batch.';

CREATE VIEW batch_audit.metric AS
SELECT metric, feed, labels, sum(value) AS value, max(changed_at) AS changed_at
FROM (SELECT * FROM batch_audit.metric_total UNION ALL
      SELECT metric, feed, labels, value, changed_at FROM batch_audit.metric_change) AS m
GROUP BY metric, feed, labels;
COMMENT ON VIEW batch_audit.metric IS 'Every metric as it stands now; see docs/monitoring.md.';

ALTER TABLE batch_audit.import_history ADD publish_seconds double precision;
COMMENT ON COLUMN batch_audit.import_history.publish_seconds IS
    'How long a server process was busy with the transaction that wrote its rows, waiting included.';

CREATE INDEX alert_open ON batch_audit.alert (severity)
    WHERE severity <> 'info' AND acknowledged_at IS NULL AND resolved_at IS NULL;
"""

# They run as their owner: whoever writes a batch needs no rights on the metrics. Where a batch is
# tried again, what a count shrinks by is not taken back: a counter goes up only.
FUNCTIONS = """
CREATE FUNCTION batch_audit.bucket(seconds double precision) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
SELECT (ARRAY['0.1', '0.5', '1', '5', '10', '30', '60', '300', '1800', '3600', '+Inf'])[1 + (
    SELECT count(*) FROM unnest(ARRAY[0.1, 0.5, 1, 5, 10, 30, 60, 300, 1800, 3600]) AS upper
    WHERE seconds > upper)]
$$;

CREATE FUNCTION batch_audit.measure_batch() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    was batch_audit.import_history;
BEGIN
    IF TG_OP = 'DELETE' THEN
        INSERT INTO batch_audit.metric_change VALUES ('batches', OLD.feed, ARRAY[OLD.status], -1);
        RETURN NULL;
    END IF;
    IF TG_OP = 'UPDATE' THEN
        was := OLD;
    END IF;
    INSERT INTO batch_audit.metric_change (metric, feed, labels, value)
    SELECT m.metric, NEW.feed, m.labels, m.value
    FROM (VALUES
        ('batches_started', ARRAY[]::text[], (was.batch_id IS NULL)::int::numeric),
        ('batches', ARRAY[NEW.status], (was.status IS DISTINCT FROM NEW.status)::int),
        ('batches', ARRAY[was.status], -(was.status <> NEW.status)::int),
        ('batches_ended', ARRAY[NEW.status],
            (was.status IS DISTINCT FROM NEW.status AND NEW.status <> 'IN_PROGRESS')::int),
        ('rows', ARRAY['written'], greatest(NEW.written_records - coalesce(was.written_records, 0), 0)),
        ('rows', ARRAY['rejected'],
            greatest(NEW.rejected_records - coalesce(was.rejected_records, 0), 0)),
        ('rows', ARRAY['skipped'], greatest(NEW.skipped_records - coalesce(was.skipped_records, 0), 0)),
        ('rows', ARRAY['read'], greatest(NEW.source_records - coalesce(was.source_records, 0), 0)),
        ('critical_rows', ARRAY[]::text[],
            greatest(NEW.critical_records - coalesce(was.critical_records, 0), 0)),
        ('source_bytes', ARRAY[]::text[],
            greatest(NEW.source_bytes - coalesce(was.source_bytes, 0), 0)),
        ('wal_bytes', ARRAY[]::text[], greatest(NEW.wal_bytes - coalesce(was.wal_bytes, 0), 0)),
        ('publish_seconds', ARRAY[]::text[],
            greatest(NEW.publish_seconds - coalesce(was.publish_seconds, 0), 0)::numeric)
    ) AS m (metric, labels, value) WHERE m.value <> 0;
    RETURN NULL;
END $$;
CREATE TRIGGER measure_batch AFTER INSERT OR UPDATE ON batch_audit.import_history
    FOR EACH ROW WHEN (NEW.adopted_from IS NULL) EXECUTE FUNCTION batch_audit.measure_batch();
CREATE TRIGGER measure_batch_gone AFTER DELETE ON batch_audit.import_history
    FOR EACH ROW WHEN (OLD.adopted_from IS NULL) EXECUTE FUNCTION batch_audit.measure_batch();

CREATE FUNCTION batch_audit.measure_stage() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    took double precision := extract(epoch FROM NEW.completed_at - NEW.started_at);
BEGIN
    INSERT INTO batch_audit.metric_change (metric, feed, labels, value)
    SELECT m.metric, h.feed, m.labels, m.value
    FROM batch_audit.import_history AS h, (VALUES
        ('stage_seconds', ARRAY[NEW.stage], took::numeric),
        ('stage_bucket', ARRAY[NEW.stage, batch_audit.bucket(took)], 1),
        ('stage_failures', ARRAY[NEW.stage], (NEW.status = 'FAILED')::int)
    ) AS m (metric, labels, value)
    WHERE h.batch_id = NEW.batch_id AND (m.value <> 0 OR m.metric = 'stage_seconds');
    RETURN NULL;
END $$;
CREATE TRIGGER measure_stage AFTER UPDATE ON batch_audit.batch_stage
    FOR EACH ROW WHEN (OLD.status = 'IN_PROGRESS' AND NEW.status <> 'IN_PROGRESS')
    EXECUTE FUNCTION batch_audit.measure_stage();

CREATE FUNCTION batch_audit.measure_signatures() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO batch_audit.metric_change (metric, feed, labels, value)
    SELECT m.metric, w.feed, ARRAY[w.way], m.value
    FROM (SELECT h.feed, CASE WHEN a.bulk THEN 'bulk' ELSE 'single' END AS way,
                 sum(a.statements) AS statements, sum(a.entries) AS entries,
                 sum(a.seconds)::numeric AS seconds, count(*) FILTER (WHERE a.fallback) AS fallbacks
          FROM added AS a JOIN batch_audit.import_history AS h USING (batch_id) GROUP BY 1, 2) AS w,
        LATERAL (VALUES ('statements', w.statements), ('statement_rows', w.entries),
            ('statement_seconds', w.seconds), ('fallbacks', w.fallbacks)) AS m (metric, value)
    WHERE m.value <> 0;
    RETURN NULL;
END $$;
CREATE TRIGGER measure_signatures AFTER INSERT ON batch_audit.batch_signature
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT
    EXECUTE FUNCTION batch_audit.measure_signatures();

CREATE FUNCTION batch_audit.measure_schema() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO batch_audit.metric_change VALUES ('schema_changes', NEW.feed, ARRAY[NEW.verdict], 1);
    RETURN NULL;
END $$;
CREATE TRIGGER measure_schema AFTER INSERT ON batch_audit.signature_event
    FOR EACH ROW WHEN (NEW.verdict <> 'same') EXECUTE FUNCTION batch_audit.measure_schema();

CREATE FUNCTION batch_audit.measure_verification() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO batch_audit.metric_change (metric, feed, labels, value)
    SELECT 'verifications', feed, ARRAY[NEW.status], 1
    FROM batch_audit.import_history WHERE batch_id = NEW.batch_id;
    RETURN NULL;
END $$;
CREATE TRIGGER measure_verification AFTER INSERT ON batch_audit.verification_log
    FOR EACH ROW EXECUTE FUNCTION batch_audit.measure_verification();

CREATE FUNCTION batch_audit.measure_rollback() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO batch_audit.metric_change (metric, feed, labels, value)
    SELECT 'rolled_back_rows', h.feed, ARRAY[m.label], m.value
    FROM batch_audit.import_history AS h, (VALUES ('deleted', NEW.deleted), ('restored', NEW.restored),
        ('reinstated', NEW.reinstated), ('kept', NEW.kept)) AS m (label, value)
    WHERE h.batch_id = NEW.batch_id AND m.value <> 0;
    RETURN NULL;
END $$;
CREATE TRIGGER measure_rollback AFTER INSERT ON batch_audit.batch_rollback
    FOR EACH ROW EXECUTE FUNCTION batch_audit.measure_rollback();

CREATE FUNCTION batch_audit.measure_alert() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO batch_audit.metric_change
    VALUES ('alerts', coalesce(NEW.feed, ''), ARRAY[NEW.kind, NEW.severity], 1);
    RETURN NULL;
END $$;
CREATE TRIGGER measure_alert AFTER INSERT ON batch_audit.alert
    FOR EACH ROW EXECUTE FUNCTION batch_audit.measure_alert();

CREATE FUNCTION batch_audit.measure_delivery() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO batch_audit.metric_change (metric, feed, labels, value)
    SELECT m.metric, '', m.labels, m.value
    FROM batch_audit.alert AS a, greatest(extract(epoch FROM NEW.sent_at - a.occurred_at), 0) AS took,
        LATERAL (VALUES ('alert_seconds', ARRAY[a.severity], took),
            ('alert_bucket', ARRAY[a.severity, batch_audit.bucket(took::float8)], 1)
        ) AS m (metric, labels, value)
    WHERE a.alert_id = NEW.alert_id AND NEW.status = 'SENT';
    INSERT INTO batch_audit.metric_change
    VALUES ('alert_deliveries', '', ARRAY[NEW.channel, NEW.status], 1);
    RETURN NULL;
END $$;
CREATE TRIGGER measure_delivery AFTER UPDATE ON batch_audit.alert_delivery
    FOR EACH ROW WHEN (OLD.status = 'WAITING' AND NEW.status <> 'WAITING')
    EXECUTE FUNCTION batch_audit.measure_delivery();

CREATE FUNCTION batch_audit.measure_bag() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_OP <> 'INSERT' THEN
        INSERT INTO batch_audit.metric_change VALUES
            ('bags', '', ARRAY[OLD.kind, OLD.state], -1),
            ('bag_bytes', '', ARRAY[OLD.kind], -OLD.payload_bytes);
    END IF;
    IF TG_OP <> 'DELETE' THEN
        INSERT INTO batch_audit.metric_change VALUES
            ('bags', '', ARRAY[NEW.kind, NEW.state], 1),
            ('bag_bytes', '', ARRAY[NEW.kind], NEW.payload_bytes);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER measure_bag AFTER INSERT OR DELETE ON batch_audit.archive_manifest
    FOR EACH ROW EXECUTE FUNCTION batch_audit.measure_bag();
CREATE TRIGGER measure_bag_changed AFTER UPDATE ON batch_audit.archive_manifest FOR EACH ROW
    WHEN ((OLD.kind, OLD.state, OLD.payload_bytes)
          IS DISTINCT FROM (NEW.kind, NEW.state, NEW.payload_bytes))
    EXECUTE FUNCTION batch_audit.measure_bag();
"""

# What is known of the batches so far: each counts with the states that it still tells of.
FILL = """
INSERT INTO batch_audit.metric_total (metric, feed, labels, value, changed_at)
SELECT m.metric, m.feed, m.labels, sum(m.value), max(m.changed_at)
FROM (
    SELECT m.metric, h.feed, m.labels, m.value::numeric,
           coalesce(h.rolled_back_at, h.completed_at, h.started_at) AS changed_at
    FROM batch_audit.import_history AS h, LATERAL (VALUES
        ('batches_started', ARRAY[]::text[], 1), ('batches', ARRAY[h.status], 1),
        ('batches_ended', ARRAY[h.status], (h.status <> 'IN_PROGRESS')::int),
        ('batches_ended', ARRAY[h.status_before], (h.status_before IS NOT NULL)::int),
        ('rows', ARRAY['written'], h.written_records), ('rows', ARRAY['rejected'], h.rejected_records),
        ('rows', ARRAY['skipped'], h.skipped_records), ('rows', ARRAY['read'], h.source_records),
        ('critical_rows', ARRAY[]::text[], h.critical_records),
        ('source_bytes', ARRAY[]::text[], h.source_bytes), ('wal_bytes', ARRAY[]::text[], h.wal_bytes)
    ) AS m (metric, labels, value) WHERE h.adopted_from IS NULL AND m.value <> 0
    UNION ALL
    SELECT m.metric, h.feed, m.labels, m.value, s.completed_at
    FROM batch_audit.batch_stage AS s JOIN batch_audit.import_history AS h USING (batch_id),
        extract(epoch FROM s.completed_at - s.started_at) AS took, LATERAL (VALUES
        ('stage_seconds', ARRAY[s.stage], took),
        ('stage_bucket', ARRAY[s.stage, batch_audit.bucket(took::float8)], 1),
        ('stage_failures', ARRAY[s.stage], (s.status = 'FAILED')::int)
    ) AS m (metric, labels, value) WHERE s.completed_at IS NOT NULL
    UNION ALL
    SELECT 'alerts', coalesce(feed, ''), ARRAY[kind, severity], 1, raised_at FROM batch_audit.alert
    UNION ALL
    SELECT m.metric, '', m.labels, m.value, a.recorded_at
    FROM batch_audit.archive_manifest AS a, LATERAL (VALUES ('bags', ARRAY[a.kind, a.state], 1::bigint),
        ('bag_bytes', ARRAY[a.kind], a.payload_bytes)) AS m (metric, labels, value)
) AS m GROUP BY 1, 2, 3;
"""

COST = """
CREATE VIEW batch_audit.batch_cost AS
SELECT h.batch_id, h.feed, h.partition_key, h.attempt, h.status, h.started_at, h.source_records,
       h.written_records, h.rejected_records, h.source_bytes, h.wal_bytes,
       round(h.wal_bytes::numeric / nullif(h.written_records, 0), 1) AS wal_bytes_per_row,
       h.publish_seconds, s.stage_seconds, s.publishing_seconds,
       h.written_records / nullif(h.publish_seconds, 0) AS rows_per_second,
       h.source_bytes / 1e6 / nullif(h.publish_seconds, 0) AS megabytes_per_second,
       a.bags, a.bag_bytes
FROM batch_audit.import_history AS h
LEFT JOIN LATERAL (
    SELECT sum(extract(epoch FROM completed_at - started_at))::float8 AS stage_seconds,
           (sum(extract(epoch FROM completed_at - started_at))
               FILTER (WHERE stage = 'bulk_write'))::float8 AS publishing_seconds
    FROM batch_audit.batch_stage AS s WHERE s.batch_id = h.batch_id) AS s ON true
LEFT JOIN LATERAL (
    SELECT count(*) AS bags, sum(payload_bytes)::bigint AS bag_bytes
    FROM batch_audit.archive_manifest AS a WHERE a.batch_id = h.batch_id) AS a ON true;
COMMENT ON VIEW batch_audit.batch_cost IS
    'What a batch cost: write-ahead log, seconds of the server and of its runs, room in the archive.';
COMMENT ON COLUMN batch_audit.batch_cost.stage_seconds IS
    'Of the last try of each stage, together; publishing_seconds is the part of bulk_write.';
COMMENT ON COLUMN batch_audit.batch_cost.rows_per_second IS 'Rows in a second of publish_seconds.';
"""

DOWNGRADE = """
DROP VIEW batch_audit.batch_cost;
DROP TRIGGER measure_bag_changed ON batch_audit.archive_manifest;
DROP TRIGGER measure_bag ON batch_audit.archive_manifest;
DROP TRIGGER measure_delivery ON batch_audit.alert_delivery;
DROP TRIGGER measure_alert ON batch_audit.alert;
DROP TRIGGER measure_rollback ON batch_audit.batch_rollback;
DROP TRIGGER measure_verification ON batch_audit.verification_log;
DROP TRIGGER measure_schema ON batch_audit.signature_event;
DROP TRIGGER measure_signatures ON batch_audit.batch_signature;
DROP TRIGGER measure_stage ON batch_audit.batch_stage;
DROP TRIGGER measure_batch_gone ON batch_audit.import_history;
DROP TRIGGER measure_batch ON batch_audit.import_history;
DROP FUNCTION batch_audit.measure_bag(), batch_audit.measure_delivery(), batch_audit.measure_alert(),
    batch_audit.measure_rollback(), batch_audit.measure_verification(), batch_audit.measure_schema(),
    batch_audit.measure_signatures(), batch_audit.measure_stage(), batch_audit.measure_batch(),
    batch_audit.bucket(double precision);
DROP INDEX batch_audit.alert_open;
ALTER TABLE batch_audit.import_history DROP publish_seconds;
DROP VIEW batch_audit.metric;
DROP TABLE batch_audit.metric_change, batch_audit.metric_total;
"""


def upgrade() -> None:
    """Begin to count."""
    op.execute(TABLES)
    op.execute(FUNCTIONS)
    op.execute(FILL)
    op.execute(COST)


def downgrade() -> None:
    """Count no more."""
    op.execute(DOWNGRADE)
