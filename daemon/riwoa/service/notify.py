"""What systemd is told: READY, STATUS, RELOADING, STOPPING, WATCHDOG (sd_notify(3)). Silent where nobody listens."""

from __future__ import annotations

import os
import socket
import time


class Notifier:
    """Datagrams to ``$NOTIFY_SOCKET``."""

    def __init__(self) -> None:
        address = os.environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._status = ""

    @property
    def watchdog_interval_s(self) -> float | None:
        """Seconds within which systemd expects a ping, None when it expects none."""
        text = os.environ.get("WATCHDOG_USEC", "")
        meant_for_us = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        return int(text) / 1e6 if text.isdigit() and int(text) > 0 and meant_for_us else None

    def ready(self) -> None:
        """The daemon serves requests and searches."""
        self._send("READY=1")

    def reloading(self) -> None:
        """A reload has begun; ``ready`` ends it. The monotonic stamp is what Type=notify-reload asks for."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> None:
        """The daemon is on its way out."""
        self._send("STOPPING=1")

    def status(self, text: str) -> None:
        """One line for ``systemctl status``; repeated lines are not sent."""
        if text != self._status:
            self._status = text
            self._send(f"STATUS={text}")

    def watchdog(self) -> None:
        """Still making progress."""
        self._send("WATCHDOG=1")

    def _send(self, message: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as client:
                client.sendto(message.encode(errors="replace"), self._address)
        except OSError:
            return  # a supervisor that went away is no reason to stop searching
