# filled in by the bootstrap work
