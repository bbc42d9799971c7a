"""Migrations of the schema, for Alembic. ``tracker.store.migrate`` runs them at start."""
