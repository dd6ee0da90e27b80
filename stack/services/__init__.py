"""One module for each service of the local platform: its command, its health and its setup."""
