"""SQL statements that write each durable change, one module for each noun of tracker.core.changes.

Not here: transactions and commits (see tracker.store.table_store). All values are bound parameters.
"""
