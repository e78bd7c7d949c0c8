"""What tasks of every kind need: losses, answers, divergences, metrics. The kinds themselves: :mod:`graftwork.tasks.kinds`."""
