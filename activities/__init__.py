"""The steps of a reconciliation, one activity class a step."""
