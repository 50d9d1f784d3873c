"""The command line and the process: what `txservices` and `twistd txservices` do before, around and after services.

    cli         the command `txservices`
    tap         the command `twistd txservices`, and the ServiceTree that both commands start
    options     the options by which a user says which configuration is meant
    settings    reads the YAML file
    loading     finds the service classes in a module
    broker      finds the broker, or starts the embedded one
    probe       asks what listens on a port
    announce    makes the lines that a user can type to try the services
    logs        decides where the log goes, and what it may say
    jsonlogs    a line of the log as a JSON object
    outputs     stdout and stderr, whatever their state
    exits       ends the process, on a signal or an error
    overtime    ends a process whose end hangs
    reloading   `run --reload`
    manhole     a Python prompt inside the process
    shell       a Python prompt in a process of its own

Nothing outside imports from here.
"""
