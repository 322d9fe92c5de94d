"""What a found network is worth: retrained from scratch, on test images that chose nothing, and on corrupted ones.

Only ``ctl`` imports it (``riwoactl validate``).
"""
