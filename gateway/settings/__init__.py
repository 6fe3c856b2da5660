"""Settings: where they come from, their types, and which ones exclude each other."""
