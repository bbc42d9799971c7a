"""The bytes on the disk: walking and digesting what is shared, and collecting what is fetched.

``sharing`` makes manifests, ``library`` reads what is complete, ``storage`` keeps what is under
way. Everything here blocks and runs on worker threads; nothing here knows of peers or the tracker.
"""
