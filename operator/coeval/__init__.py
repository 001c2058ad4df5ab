"""Coeval backs up every disk of a KubeVirt VM as of the same moment."""

__version__ = "0.1.0"
