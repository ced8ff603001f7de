"""Decorators: a Python function in, a task that is given a W&B client out.

May import: airflow, hooks, operators, retry_policy, the core.
"""
