"""Wire messages: one module per conversation, a union of tagged structs each.

Bodies are msgpack arrays beginning with a tag. Fields are only ever appended, with a default, so
that an older reader skips what it does not know and a newer one fills in what it misses.
"""
