"""The daemon's life: sessions of a run, the status, the control socket, the governor, systemd."""
