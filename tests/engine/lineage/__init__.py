"""Lineage for catalogs outside."""
