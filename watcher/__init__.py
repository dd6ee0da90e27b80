"""The process that turns changes of objects into workflows."""
