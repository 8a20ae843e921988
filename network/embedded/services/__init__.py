"""The services of peers and orderers over gRPC: thin edges on the ledger. Who asks whom, and in which words."""
