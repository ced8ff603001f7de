"""Operators: templated arguments in, a core request and a small result out.

They hold no logic of their own and raise the core's errors unwrapped, so that a retry policy sees
their advice. May import: airflow, hooks, links, lineage, retry_policy, triggers, the core.
"""
