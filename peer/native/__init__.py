"""Compiled data path: the optional library of `mini-torrent-native`, and what uses it.

The Python path is the reference: the same bytes on the wire and on the disk, without the library.
"""
