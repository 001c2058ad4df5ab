"""The test CSI driver: volumes are files on an XFS filesystem with reflinks, attached as loop devices.

Small and honest: a snapshot is one atomic FICLONE, a Filesystem volume is ext4 *on* the device, and the
state on disk is the truth, so a driver that was killed at any instruction comes back consistent.
"""
