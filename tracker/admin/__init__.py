"""Administration of a tracker: home, backup, restore and doctor."""
