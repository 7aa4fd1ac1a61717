"""What is seen only where another program runs: promtool, Azurite, a fresh interpreter, the command as a process."""
