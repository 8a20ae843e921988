"""Mapping format v1, and the pure `map` stage: effective writes become typed rows or quarantine entries."""
