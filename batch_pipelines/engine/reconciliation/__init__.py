"""Reconcile: batches that another system has loaded, compared with the files they are from."""
