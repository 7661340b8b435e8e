"""The specification, as tests; it mirrors the packages."""
