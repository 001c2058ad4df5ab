"""KubeVirt on the test cluster: its own programs, built from its Go module, in images of our own.

What this set-up cannot show: pull-mode backups (libnbd cannot be had as a Go module; a stub is in its place),
a running VM with a `lun` disk (that needs a real SCSI device), exports (the export server is not built), and
live migration (there is one node).
"""
