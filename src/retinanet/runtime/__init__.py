"""Engines that run exported models. No module in this package imports torch."""
