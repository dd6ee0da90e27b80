"""The local platform: every backend as a plain process on the loopback."""
