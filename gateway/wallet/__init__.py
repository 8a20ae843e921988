"""Where the identities of users are kept."""
