"""The worker's side: a pinned process that serves the connections it is handed."""
