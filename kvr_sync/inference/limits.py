"""Every limit of the inference, in one place, with units: what is remembered does not grow with the chain."""

MAX_DISTINCT = 200
"""Distinct values remembered of a part of a key, or of a member; more count as "many"."""

MAX_SHAPES = 2_000
"""Shapes of simple keys kept apart in one chaincode; further ones go into one group."""

MAX_MEMBERS = 200
"""Members of one object that are looked at one by one; further ones stay in the column of unknown members."""

MAX_NESTING = 3
"""Nested objects that become columns; deeper ones are json columns."""

MAX_ELEMENTS_READ = 50
"""Elements of an array that are looked at in one document."""

MIN_FOR_CONTRADICTION = 10
"""Documents that must agree before a column is said to repeat a part of the key."""

MIN_LITERAL_SHARE = 3
"""Keys that a word must stand in, on average, to be taken for a fixed part of keys and not for a name."""

MAX_STRANGE_SHARE = 0.05
"""Share of values that may be no documents where a table is proposed for documents; they would go to quarantine."""

MAX_STRAY_SHARE = 0.01
"""Share of the values of a column that may be of another type than is proposed."""

MAX_MISFITS_KEPT = 20
"""Values that a type may refuse before it is no longer looked at, whatever their share is so far."""
