"""One seeded workload on two networks, and everything that came of it compared."""
