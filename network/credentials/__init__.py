"""Certificates and keys of a network: how they are issued, and the folder that keeps them."""
