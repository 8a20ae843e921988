"""A whole Fabric ledger in one process, without sockets: endorse, order, commit; clock and chance are injected."""
