"""Public blocks as they came, compressed, in append-only files: what rebuilds every public table without a peer."""
