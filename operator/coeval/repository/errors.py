"""Failures that the data plane reports: each has a CamelCase reason and a message that names the object."""

from __future__ import annotations


class DataPlaneError(Exception):
    """A failure with a reason for programs, a message for people and the exit code of the command line."""

    reason = "Internal"
    exit_code = 1


class InvalidArgument(DataPlaneError):
    """The caller asked for something that cannot be meant; the message names the option and the way out."""

    reason = "InvalidArgument"
    exit_code = 2


class WrongPassword(DataPlaneError):
    """No key file of the repository opens with the password."""

    reason = "WrongPassword"


class RepositoryNotFound(DataPlaneError):
    """There is no repository at the location."""

    reason = "RepositoryNotFound"


class RepositoryFull(DataPlaneError):
    """The store has no space, inodes or quota left."""

    reason = "RepositoryFull"


class RepositoryLocked(DataPlaneError):
    """Somebody else holds the repository exclusively, or our own lock was lost."""

    reason = "RepositoryLocked"


class RepositoryUnreachable(DataPlaneError):
    """The store does not answer, or does not let us in."""

    reason = "RepositoryUnreachable"


class CredentialsRefused(DataPlaneError):
    """The object store does not accept the credentials, or they do not allow what we asked for."""

    reason = "CredentialsRefused"


class BucketNotFound(DataPlaneError):
    """The object store has no such bucket or container; we never make one."""

    reason = "BucketNotFound"


class StoreUnfit(DataPlaneError):
    """The store answers, but does not do what a repository needs of it."""

    reason = "StoreUnfit"


class ConditionalWritesIgnored(StoreUnfit):
    """The store writes over what is there although told not to: one repository could be made twice."""

    reason = "ConditionalWritesIgnored"


class RepositoryDamaged(DataPlaneError):
    """An object is missing, truncated or changed. The message names it."""

    reason = "RepositoryDamaged"
    exit_code = 3


class ObjectMissing(RepositoryDamaged):
    """An object that something else refers to is not in the store."""


class SnapshotNotFound(DataPlaneError):
    """No snapshot, or more than one, has this id."""

    reason = "SnapshotNotFound"
