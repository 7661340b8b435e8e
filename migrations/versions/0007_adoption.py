"""Adoption: tables that were there before us, and an import history that somebody else began."""

from __future__ import annotations

from alembic import op

revision = "0007"
down_revision = "0006"

# PostgreSQL has no SHA-1 without an extension, which version 5 of a UUID takes (RFC 9562, section 5.5),
# and not every role may create one. Ids are short and few, so that a loop in PL/pgSQL does.
UPGRADE = r"""
CREATE FUNCTION batch_audit.batch_id_of(id text) RETURNS uuid
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog AS $$
DECLARE
    name bytea;
    word bigint[];
    hash bigint[] := ARRAY[x'67452301'::bigint, x'efcdab89'::bigint, x'98badcfe'::bigint,
                           x'10325476'::bigint, x'c3d2e1f0'::bigint];
    full_word CONSTANT bigint := x'ffffffff'::bigint;
    a bigint; b bigint; c bigint; d bigint; e bigint; f bigint; k bigint; turned bigint;
    digest bytea;
BEGIN
    IF id = '' THEN
        RETURN NULL;
    ELSIF id ~* '^[0-9a-f]{8}(-?[0-9a-f]{4}){3}-?[0-9a-f]{12}$' THEN
        RETURN id::uuid;
    END IF;
    name := '\x143bae2527d1562e91b20fefd4ff2eb2'::bytea || convert_to(id, 'UTF8');
    name := name || '\x80'::bytea
        || decode(repeat('00', (119 - length(name) % 64) % 64), 'hex') || int8send(length(name) * 8);
    FOR block IN 0 .. length(name) / 64 - 1 LOOP
        FOR t IN 0 .. 15 LOOP
            word[t] := (get_byte(name, block * 64 + t * 4)::bigint << 24)
                + (get_byte(name, block * 64 + t * 4 + 1) << 16)
                + (get_byte(name, block * 64 + t * 4 + 2) << 8)
                + get_byte(name, block * 64 + t * 4 + 3);
        END LOOP;
        FOR t IN 16 .. 79 LOOP
            turned := word[t - 3] # word[t - 8] # word[t - 14] # word[t - 16];
            word[t] := ((turned << 1) | (turned >> 31)) & full_word;
        END LOOP;
        a := hash[1]; b := hash[2]; c := hash[3]; d := hash[4]; e := hash[5];
        FOR t IN 0 .. 79 LOOP
            IF t < 20 THEN
                f := (b & c) | ((full_word - b) & d); k := x'5a827999'::bigint;
            ELSIF t < 40 THEN
                f := b # c # d; k := x'6ed9eba1'::bigint;
            ELSIF t < 60 THEN
                f := (b & c) | (b & d) | (c & d); k := x'8f1bbcdc'::bigint;
            ELSE
                f := b # c # d; k := x'ca62c1d6'::bigint;
            END IF;
            turned := ((((a << 5) | (a >> 27)) & full_word) + f + e + k + word[t]) & full_word;
            e := d; d := c; c := ((b << 30) | (b >> 2)) & full_word; b := a; a := turned;
        END LOOP;
        hash := ARRAY[(hash[1] + a) & full_word, (hash[2] + b) & full_word,
                      (hash[3] + c) & full_word, (hash[4] + d) & full_word,
                      (hash[5] + e) & full_word];
    END LOOP;
    digest := substring(int8send(hash[1]) FROM 5) || substring(int8send(hash[2]) FROM 5)
        || substring(int8send(hash[3]) FROM 5) || substring(int8send(hash[4]) FROM 5);
    digest := set_byte(digest, 6, (get_byte(digest, 6) & 15) + 80);
    digest := set_byte(digest, 8, (get_byte(digest, 8) & 63) + 128);
    RETURN encode(digest, 'hex')::uuid;
END $$;
COMMENT ON FUNCTION batch_audit.batch_id_of(text) IS
    'The batch id for an id of another system: itself if it is a UUID, else its name-based UUID '
    '(version 5) in the namespace 143bae25-27d1-562e-91b2-0fefd4ff2eb2.';

-- Runs for roles that know nothing of the ledger's schema, as its owner.
CREATE FUNCTION batch_audit.fill_batch_id() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    id text;
BEGIN
    EXECUTE format('SELECT ($1).%I::text', TG_ARGV[0]) INTO id USING NEW;
    RETURN jsonb_populate_record(
        NEW, jsonb_build_object(TG_ARGV[1], batch_audit.batch_id_of(id)));
END $$;
-- Nobody else may have it run with the owner's rights, on a type of their own making.
REVOKE ALL ON FUNCTION batch_audit.fill_batch_id() FROM PUBLIC;
COMMENT ON FUNCTION batch_audit.fill_batch_id() IS
    'Trigger: gives a row the batch id (in the second column) for its id (in the first column).';

CREATE TABLE batch_audit.tracked_table (
    table_name text PRIMARY KEY,
    had_column boolean NOT NULL,
    had_index boolean NOT NULL,
    requested_by text NOT NULL,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    completed_at timestamptz
);
COMMENT ON TABLE batch_audit.tracked_table IS
    'Tables that `db track` gave a stamp, and what they had of it before.';

CREATE TABLE batch_audit.adopted_history (
    table_name text PRIMARY KEY,
    options jsonb NOT NULL,
    had_column boolean NOT NULL,
    had_unique boolean NOT NULL,
    had_not_null boolean NOT NULL,
    requested_by text NOT NULL,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    completed_at timestamptz
);
COMMENT ON TABLE batch_audit.adopted_history IS
    'Import histories that `db adopt` took over, and what they had of a batch id before.';
COMMENT ON COLUMN batch_audit.adopted_history.options IS
    'Which column means what, and which word of theirs is which state; a resumed adoption reads them.';

ALTER TABLE batch_audit.import_history ADD adopted_from text;
COMMENT ON COLUMN batch_audit.import_history.adopted_from IS
    'Import history of another system that the batch was taken over from; null for one of ours.';
CREATE INDEX ON batch_audit.import_history (adopted_from) WHERE adopted_from IS NOT NULL;
"""

DOWNGRADE = """
DELETE FROM batch_audit.import_history WHERE adopted_from IS NOT NULL;
ALTER TABLE batch_audit.import_history DROP adopted_from;
DROP TABLE batch_audit.adopted_history, batch_audit.tracked_table;
DROP FUNCTION batch_audit.fill_batch_id();
DROP FUNCTION batch_audit.batch_id_of(text);
"""


def upgrade() -> None:
    """Make room for what is adopted."""
    op.execute(UPGRADE)


def downgrade() -> None:
    """Drop it; what `db track` and `db adopt` did to tables is taken back before, by `db downgrade`."""
    op.execute(DOWNGRADE)
