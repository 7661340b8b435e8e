"""Landing: what lies there, whether it is complete, which files are a delivery, which want a run."""
