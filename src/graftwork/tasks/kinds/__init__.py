"""One module a task kind, found by name: whatever module here sets ``KIND`` is a kind, and no list of them exists anywhere.

What a kind offers: :class:`graftwork.interfaces.task_kind.TaskKind`. Modules whose names end in ``_positions`` hold the kinds of
that name for one answer per pixel, point, step or node. torch is imported inside the methods that get tensors, so that readers
and servers can ask kinds without it.
"""
