"""Fabric's rules as pure functions: bytes in, frozen values out; no I/O, no clock, nothing else of ours."""
