"""REST service on the client of Fabric."""
