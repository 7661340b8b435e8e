"""Where deliveries lie: folders and buckets, listed and read alike."""
