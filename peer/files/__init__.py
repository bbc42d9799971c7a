"""Bytes on the disk: shared files, digested and read; parts of downloads, written and completed.

``sharing`` makes manifests, ``library`` reads complete contents, ``partial_content`` keeps
unfinished ones. Everything here blocks and runs on worker threads. Not here: peers and the tracker.
"""
