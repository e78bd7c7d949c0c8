"""Learners of rows that have columns beside a text or a picture."""
