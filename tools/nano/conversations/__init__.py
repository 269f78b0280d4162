"""Generated conversations: what the demonstration model learns from, and nothing else."""
