CREATE SCHEMA IF NOT EXISTS laboratory;
CREATE TABLE IF NOT EXISTS laboratory.lab_results (
    accession text,
    test_code text,
    patient text NOT NULL,
    value numeric(8, 2) NOT NULL,
    unit text NOT NULL,
    technician text NOT NULL,
    ordering_physician text NOT NULL,
    collected_at timestamptz NOT NULL,
    received_at timestamptz NOT NULL,
    import_batch_id uuid,
    PRIMARY KEY (accession, test_code)
);
CREATE INDEX IF NOT EXISTS lab_results_import_batch_id ON laboratory.lab_results (import_batch_id);
