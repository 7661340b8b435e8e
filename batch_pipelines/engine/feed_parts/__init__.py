"""The parts of a feed: where deliveries come from, what they fill, and what is tolerated."""
