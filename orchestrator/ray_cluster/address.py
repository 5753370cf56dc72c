"""Which address of a Ray cluster a job joins, and whether it can be one."""

import ipaddress
import re
from collections.abc import Mapping

from sdnet.errors import InputError, shown

_HOST_AND_PORT = re.compile(r"(?:\[(?P<ipv6>[0-9A-Za-z:.%]+)\]|(?P<host>[^][:/\s]+)):(?P<port>[0-9]{1,5})")


def host_and_port(address: str) -> tuple[str, int] | None:
    """Host, without the brackets of IPv6, and port of `host:port`; None for any other text."""
    match = _HOST_AND_PORT.fullmatch(address)
    if match is None or not 0 < int(match["port"]) < 2**16:
        return None
    try:
        if match["ipv6"]:
            ipaddress.IPv6Address(match["ipv6"])
        else:
            match["host"].encode("idna")  # fails for h..x and for parts of more than 63 characters
    except ValueError:
        return None
    return match["ipv6"] or match["host"], int(match["port"])


def address_to_join(address: str, environment: Mapping[str, str]) -> str:
    """What `ray.init` joins for `cluster.address`: host:port, or `auto` to search on this host.

    For `auto` Ray reads RAY_ADDRESS. Raises InputError when its value is something that a job cannot join, such as
    the http:// address of the dashboard, which `ray job submit` takes, or ray:// of Ray Client.
    """
    given = environment.get("RAY_ADDRESS", "")
    if address != "auto" or given in ("", "auto"):
        return address
    if host_and_port(given) is None:
        raise InputError(
            f"cluster.address is auto and the environment variable RAY_ADDRESS is {shown(given)}, which a "
            "job cannot join; unset it, or set it to the host:port of `ray start`, not the dashboard's"
        )
    return given
