"""A network as it runs on this machine: its folder, its processes, the steps that bring it up and down."""
