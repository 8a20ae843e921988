"""What the demo shows: a recorded chain, the digest of its block 0, its mapping to tables, and questions to them.

Files `*.sql`: the comment lines at the top are the question in words, the rest is one statement of SQLite.
"""
