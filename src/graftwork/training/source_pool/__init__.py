"""A pool of small source models, and the table of what each is worth on each target."""
