"""txservices beside its peers: one run, one broker, ratios.

    python -m benchmarks                    all rows, five rounds; writes results/
    python -m benchmarks rpc-50 events      these rows
    python -m benchmarks --quick            one round of tiny ones, to see that everything runs
    python -m benchmarks http-get --reactor asyncio    what another reactor costs
    python -m benchmarks.micro              single steps of the hot path, in microseconds; takes some ten seconds
    python -m benchmarks.late               how late delayed messages come, by RabbitMQ's own clock; takes a minute
    python -m benchmarks.delayed            memory while 100,000 messages are in delay; takes some ten minutes

`rows` says what is measured and what must be reached, and `growth` how cost grows. `measure` starts a service and a
caller and takes their figures. `report` and `chart` write them down. Each peer has a file in `peers/`, which says how
it is set up. `environment` makes the virtual environment of the peers. `micro` measures single steps of the hot path,
in one process and without a broker.
"""
