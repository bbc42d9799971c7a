"""Mini-Torrent timed beside the programs that people use today, in the same minutes."""
