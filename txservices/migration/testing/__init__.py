"""nameko's helpers for tests, which wait: ours do the work in the reactor's thread."""
