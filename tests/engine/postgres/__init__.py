"""Tests of the server, connections, leases and migrations."""
