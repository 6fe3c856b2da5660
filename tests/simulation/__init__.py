"""The gateway, its broker and its devices in one thread, under a virtual clock, from one seed (docs/simulation.md)."""
