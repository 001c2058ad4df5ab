"""The data plane: moves volumes into a repository and back. Has no access to any API server."""
