"""PostgreSQL as the engine meets it: the embedded server, connections, leases, migrations."""
