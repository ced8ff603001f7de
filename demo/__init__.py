"""The main job end to end on this machine: train, export, backfill, export again, read back.

In:  nothing. Out: a DuckDB file, a plot, and what a person wants to see of each step.
Each step that needs another framework is a program of its own; nothing is left running.
"""
