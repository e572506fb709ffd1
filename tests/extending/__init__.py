"""A user's package, installed into a folder of its own, and the tests that train with all of it."""
