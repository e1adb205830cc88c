"""`make demo`: the whole product on one machine, watching buckets that really change."""
