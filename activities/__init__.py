"""The steps of a reconciliation, with one activity class for each step."""
