"""The watcher process: it turns changes of objects into reconcile requests."""
