"""One module per service of the local platform: its command, its health, its first setting up."""
