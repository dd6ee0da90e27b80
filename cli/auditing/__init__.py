"""The auditor: what exists, asked of every backend directly, compared with what the objects say; it writes nothing.

It shares no code with the activities: what they get wrong it must not get wrong in the same way.
"""
