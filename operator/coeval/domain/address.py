"""Addresses as administrators write them."""

import re


def is_host_and_port(address: str) -> bool:
    """`host:port`; of an IPv6 host in brackets."""
    host, _, port = address.rpartition(":")
    bare = not host.startswith("[")
    if not host or (bare and ":" in host) or not re.fullmatch(r"\d{1,5}", port):
        return False
    return 0 < int(port) < 65536
