"""The demos: a live network and its tables, and a recorded week of a real one."""
