"""Parameters, FLOPs and state bytes, exact; models matched on them; counts that are published."""
