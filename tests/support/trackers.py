"""Addresses of trackers that answer nothing."""

import socket

# -- outages ----------------------------------------------------------------------------------------------------------


def dead_address() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"
