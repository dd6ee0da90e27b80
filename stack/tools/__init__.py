"""Where the platform's binaries come from: a setting, PATH, the cache, a download, or a build."""
