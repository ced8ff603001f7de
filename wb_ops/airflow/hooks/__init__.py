"""Hooks: an Airflow connection in, a W&B client out. May import: airflow, client, settings."""
