"""Change sources: which bytes of a volume may differ between two moments, and how that is known."""
