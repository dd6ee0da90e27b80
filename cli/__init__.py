"""The plattr command."""
