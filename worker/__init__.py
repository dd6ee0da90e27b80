"""The process that runs the workflows and their activities."""
