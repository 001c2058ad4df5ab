"""Decisions as functions of plain values: no input or output, nothing of ours imported."""
