"""The auditor asks every backend directly what exists, and compares the answer with the objects. It writes nothing.

It shares no code with the activities, so that it does not repeat their mistakes.
"""
