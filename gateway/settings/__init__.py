"""Settings: their sources, their types, and which ones exclude each other."""
