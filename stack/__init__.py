"""The local platform: every backend Plattr needs as a plain process on the loopback, without Docker."""
