"""Raw tables to a ``Dataset``; front doors: ``build.prepare_files``, ``presets.prepare_preset``, ``store.load_dataset``."""
