"""Sensors: a W&B run in, its end out: success, failure or a timeout.

May import: airflow, hooks, links, operators.deferral, retry_policy, triggers, the core.
"""
