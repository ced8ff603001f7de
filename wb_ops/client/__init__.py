"""W&B's data API without the W&B SDK.

In:  Settings. Out: runs, summaries, histories (Arrow), and errors with advice.
May import: errors, settings, tables.
"""
