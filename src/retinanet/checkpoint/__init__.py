"""Model files: the format of our checkpoints, reading them, and the import of other projects' weights."""
