"""Engines that run exported models. Nothing here imports torch."""
