"""Benchmarks: Mini-Torrent beside other programs, in interleaved rounds."""
