"""Real Fabric nodes as plain processes of this machine."""
