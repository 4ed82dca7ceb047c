"""What the process needs of the machine: memory, time, threads, processes. No network, no data."""
