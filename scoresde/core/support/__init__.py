"""What the whole package uses: checks of arguments, helpers for tensors, files and texts."""
