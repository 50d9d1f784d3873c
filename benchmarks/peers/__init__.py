"""The frameworks side by side, one file each, all with the command line of `contract`."""
