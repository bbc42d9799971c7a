"""Keys, tickets, sealed events and sealed streams."""
