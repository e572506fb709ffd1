"""A user's package that extends retinanet, and the tests that install the package and train with it."""
