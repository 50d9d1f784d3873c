"""nameko's code, as it is: the folder ``as_it_is`` has services and a suite that were written for nameko."""
