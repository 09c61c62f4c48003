"""Files: paths, files that are there completely or not at all, locks, arrays and images."""
