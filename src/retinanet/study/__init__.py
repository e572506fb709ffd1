"""Compare losses by many training runs on the user's data."""
