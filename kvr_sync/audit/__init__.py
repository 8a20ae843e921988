"""What the tables can prove and tell about the ledger behind them."""
