CREATE SCHEMA IF NOT EXISTS inventory;
CREATE TABLE IF NOT EXISTS inventory.departments (
    code text PRIMARY KEY,
    name text NOT NULL,
    active boolean NOT NULL DEFAULT true,
    created_at timestamptz NOT NULL DEFAULT now(),
    import_batch_id uuid
);
CREATE TABLE IF NOT EXISTS inventory.users (
    id integer PRIMARY KEY,
    username text NOT NULL UNIQUE,
    email text NOT NULL CHECK (email LIKE '%_@_%'),
    created_at timestamptz NOT NULL DEFAULT now(),
    import_batch_id uuid
);
CREATE TABLE IF NOT EXISTS inventory.user_departments (
    user_id integer REFERENCES inventory.users,
    department text REFERENCES inventory.departments,
    role text NOT NULL,
    import_batch_id uuid,
    PRIMARY KEY (user_id, department)
);
CREATE INDEX IF NOT EXISTS user_departments_department ON inventory.user_departments (department);
CREATE INDEX IF NOT EXISTS departments_import_batch_id ON inventory.departments (import_batch_id);
CREATE INDEX IF NOT EXISTS users_import_batch_id ON inventory.users (import_batch_id);
CREATE INDEX IF NOT EXISTS user_departments_import_batch_id
    ON inventory.user_departments (import_batch_id);

-- Typed in by hand: no batch wrote them. A delivery brings one of them under another name.
INSERT INTO inventory.departments (code, name) VALUES ('BOARD', 'Board'), ('PHARM', 'Pharmacy')
ON CONFLICT DO NOTHING;
INSERT INTO inventory.users (id, username, email) VALUES (1, 'admin', 'admin@example.org')
ON CONFLICT DO NOTHING;
INSERT INTO inventory.user_departments (user_id, department, role) VALUES (1, 'BOARD', 'member')
ON CONFLICT DO NOTHING;
