"""Many training runs compared on the user's data."""
