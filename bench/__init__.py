"""`make bench`: how fast scanning is, in ratios against peers on the same server."""
