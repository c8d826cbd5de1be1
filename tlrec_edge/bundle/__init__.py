"""The bundle: its format, reading, writing and checking one."""
