"""Raw tables to a ``Dataset``: ``build.prepare_files``, ``presets.prepare_preset``; kept by ``store``."""
