"""Every limit of mappings and of the documents they read, in one place, with units."""

MAX_MAPPING_BYTES = 256 * 1024
"""Bytes of one mapping file; one of a hundred tables has a tenth of it."""

MAX_MAPPING_DEPTH = 12
"""Nesting inside a mapping file; the format itself needs six."""

MAX_MISTAKES = 50
"""Mistakes told of one mapping; the rest is counted."""

MAX_TABLES = 200
"""Tables of one mapping (also in `mapping.schema.json`)."""

MAX_COLUMNS = 500
"""Columns of one table (also in `mapping.schema.json`); PostgreSQL ends at 1,600, SQLite at 2,000."""

MAX_KEY_ATTRIBUTES = 50
"""Attributes of one key (also in `mapping.schema.json`)."""

MAX_ELEMENTS = 100_000
"""Rows of one child table that one document makes."""

MAX_EXTERNAL_ID_BYTES = 512
"""UTF-8 bytes of the readable id of a row."""

MAX_PATH_STEPS = 32
"""Steps of one JSON path."""

MAX_DOCUMENT_BYTES = 4 * 1024 * 1024
"""Bytes of one JSON value that is read. The value itself stays in the ledger layer whatever its size."""

MAX_DOCUMENT_DEPTH = 100
"""Nested arrays and objects in one JSON value."""

MAX_DIGITS_BEFORE_POINT = 131_072
"""Decimal digits before the point that PostgreSQL's numeric can hold."""

MAX_DIGITS_AFTER_POINT = 16_383
"""Decimal digits after the point that PostgreSQL's numeric can hold."""

MAX_PRECISION = 1_000
"""Largest precision that PostgreSQL lets a numeric column declare."""

MAX_INDEXED_TEXT_BYTES = 2_500
"""UTF-8 bytes of an indexed text; PostgreSQL refuses a B-tree entry above 2,704, which would stop the whole channel."""

MAX_INDEXED_DIGITS = 1_000
"""Decimal digits of an indexed decimal, for the same reason."""
