"""Runs before main.py on a board: free what the REPL may have left, and nothing else."""

import gc

gc.collect()
