"""Reading deliveries: once to load them, and by simpler or other programs to check that reading."""
