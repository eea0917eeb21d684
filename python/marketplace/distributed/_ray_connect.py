"""Finding a Ray cluster, or starting one."""

import socket
from typing import Any

from .._arrays import refusal

OP = "RayCluster"
_REACH = 5.0  # seconds to open a connection to the head node


def import_ray() -> Any:
    try:
        import ray
    except ImportError as error:
        wanted = "ray (pip install 'marketplace[ray]')"
        raise refusal(ModuleNotFoundError, OP, wanted, error) from error
    return ray


def connect(ray: Any, address: str | None, workers: int) -> bool:
    """Connect to a Ray cluster; tell whether it was started, or connected to, here."""
    quiet = {"logging_level": "ERROR", "log_to_driver": False}  # errors arrive as exceptions
    if ray.is_initialized():
        if address is not None:
            raise refusal(ValueError, OP, "no address after ray.init", address)
        return False
    if address is None:
        ray.init(address="local", num_cpus=workers, include_dashboard=False, **quiet)
        return True
    if address != "auto":
        check_reachable(address)
    try:
        ray.init(address=address, **quiet)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise refusal(ConnectionError, OP, f"a Ray cluster at {address}", error) from error
    return True


def check_reachable(address: str) -> None:
    """Ray itself tries again for minutes, and ends the process then."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        wanted = "an address as host:port, ray://host:port or auto"
        raise refusal(ValueError, OP, wanted, address)
    try:
        socket.create_connection((host, int(port)), _REACH).close()
    except (OSError, OverflowError) as error:
        raise refusal(ConnectionError, OP, f"a Ray cluster at {address}", error) from error
