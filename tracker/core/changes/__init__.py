"""Durable changes: the effects of a decision on the state, one module for each noun.

A change is a value that says what it does to the mirror in memory. Its statements for the database
stand under the same noun in tracker.store.statements. Invariant: the two agree; the store's
contract suite checks it. Times are milliseconds since 1970.
"""
