"""Notifications to systemd (sd_notify(3)): READY, STATUS, RELOADING, STOPPING, WATCHDOG."""

from __future__ import annotations

import os
import socket
import time


class Notifier:
    """Sends datagrams to ``$NOTIFY_SOCKET``; does nothing where that is not set."""

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
        """Tell that the daemon serves requests and searches."""
        self._send("READY=1")

    def reloading(self) -> None:
        """Tell that a reload has begun, which ``ready`` ends; Type=notify-reload asks for the monotonic stamp."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> None:
        """Tell that the daemon is about to end."""
        self._send("STOPPING=1")

    def status(self, text: str) -> None:
        """Tell the line that ``systemctl status`` shows; a repeated one is not sent."""
        if text != self._status:
            self._status = text
            self._send(f"STATUS={text}")

    def watchdog(self) -> None:
        """Ping the watchdog: the daemon still makes progress."""
        self._send("WATCHDOG=1")

    def _send(self, message: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as client:
                client.sendto(message.encode(errors="replace"), self._address)
        except OSError:
            return  # a supervisor that went away is no reason to stop searching
