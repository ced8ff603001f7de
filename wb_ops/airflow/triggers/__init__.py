"""Triggers: a W&B question and a poll interval in, small typed events out.

They resolve the connection async, ask W&B in a thread, and never raise an error of ours: it
travels as an event and is raised again in the worker. May import: airflow, hooks, the core.
"""
