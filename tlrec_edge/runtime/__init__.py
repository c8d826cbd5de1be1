"""The light runtime: what a service embeds."""
