"""What tests share: prerequisites, real databases, recorded chains, an oracle that shares no code with the product."""
