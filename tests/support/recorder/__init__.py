"""Records chains of real Fabric networks for `tests/vectors`; `python -m tests.support.recorder`."""
