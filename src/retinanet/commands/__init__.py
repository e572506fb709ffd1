"""One file per command: its options, what it prints and which report it writes. Only this layer prints."""
