"""The command line `coeval`."""
