"""From raw tables to a stored ``Dataset``: see ``prepare``, ``presets`` and ``store``."""
