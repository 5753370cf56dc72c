"""The network link of this host: finds its interface, takes it down and up again."""

import os
import shutil
import subprocess

import psutil


def why_it_cannot_be_cut(address: str) -> str:
    """Empty when this process can take down the interface that has the address, otherwise the reason."""
    interface = interface_of(address)
    if interface is None:
        return f"no interface has the address {address}"
    if interface == "lo":
        return f"{address} is on the loopback interface"
    if os.geteuid() != 0:
        return "Ray does not run as root there"
    return "" if shutil.which("ip") else "ip is not installed there"


def interface_of(address: str) -> str | None:
    """The name of the interface of this host that has the address."""
    for name, addresses in psutil.net_if_addrs().items():
        if any(own.address == address for own in addresses):
            return name
    return None


def cut(interface: str) -> list[str]:
    """Take the interface down. Returns the routes that the kernel will not restore by itself."""
    routes = _ip("route", "show", "dev", interface).splitlines()
    _ip("link", "set", "dev", interface, "down")
    return [route for route in routes if "proto kernel" not in route]


def is_down(interface: str) -> bool:
    """Whether the kernel reports that the interface is down."""
    return not psutil.net_if_stats()[interface].isup


def heal(interface: str, routes: list[str]) -> None:
    """Take the interface up again and restore its routes."""
    _ip("link", "set", "dev", interface, "up")
    for route in routes:
        words = [word for word in route.split() if word not in ("linkdown", "dead")]
        _ip("route", "replace", *words, "dev", interface)


def _ip(*arguments: str) -> str:
    return subprocess.run(["ip", *arguments], capture_output=True, text=True, check=True).stdout
