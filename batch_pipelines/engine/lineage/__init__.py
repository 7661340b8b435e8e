"""Lineage for catalogs outside, as OpenLineage events (https://openlineage.io), by its own client.

They are made from the ledger after the fact: no batch waits for a catalog, or fails because of one.
"""
