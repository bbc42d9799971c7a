"""The history of the schema, as Alembic migrations. ``tracker.store.migrate`` runs them at
start.
"""
