"""What the tracker and the peers both speak, and nothing else.

Nothing in here imports ``tracker`` or ``peer``.
"""
