"""What this device shares.

``registry`` keeps the records, the shelf and the tracker's list in agreement, ``digesting`` turns a
path into a manifest while somebody looks on, ``catalogue`` is what is said to the tracker about it.
"""
