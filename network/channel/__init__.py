"""Changing the configuration of a live channel: what to change, said in words, signed by several, submitted."""
