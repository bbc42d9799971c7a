"""The history of the schema, as Alembic migrations. ``tracker.migrate`` runs them at start."""
