"""The Cap'n Proto RPC server: a supervisor that accepts, and pinned workers that serve."""
