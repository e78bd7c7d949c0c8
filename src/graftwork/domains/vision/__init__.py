"""Learners of pictures that need no network."""
