"""The tracker's database: transactions, statements, tables and migrations."""
