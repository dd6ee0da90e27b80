"""The durable workflows: what runs, in which order, until when."""
