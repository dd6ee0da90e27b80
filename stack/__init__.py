"""The local platform: every backend that Plattr needs, as a plain process on the loopback, without Docker."""
