"""The restic repository format, version 2: our own writer and reader. Knows nothing of volumes."""
