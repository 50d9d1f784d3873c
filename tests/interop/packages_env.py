"""nameko's extension packages, from PyPI, in one virtual environment without nameko: ``.nameko-packages/`` in the
checkout's folder.

txservices and what it needs are those of the environment that the tests run in: the new one sees them. What a package
of nameko's needs is installed over them, so that an old SQLAlchemy is used there and a new one by the suite.

`python -m tests.interop.packages_env` makes it ahead of the tests, as `.ci/run` does while others run.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import sys
import sysconfig

from tests.interop import nameko_env
from tests.processes import ROOT

# Installed without what they say that they need, which is nameko and eventlet before all.
PACKAGES = (
    "django-nameko==0.8.2",
    "flask-nameko==1.4.0",
    "nameko-amqp-retry==0.7.1",
    "nameko-autocrud==0.2.0",
    "nameko-bayeux-client==1.0.0",
    "nameko-cachetools==1.0.0",
    "nameko-chassis==3.2.0",
    "nameko-cron==0.1.0",
    "nameko-eventlog-dispatcher==0.4.2",
    "nameko-grpc==1.3.0",
    "nameko-kafka==0.2.1",
    "nameko-mongodb==1.1.1",
    "nameko-prometheus==1.6.0",
    "nameko-redis==1.1.0",
    "nameko-rediskn==0.1.1",
    "nameko-salesforce==1.2.0",
    "nameko-sentry==1.0.0",
    "nameko-serializer==1.0.0",
    "nameko-sqlalchemy==1.5.0",
    "nameko-statsd==0.1.4",
    "nameko-structlog==0.2.2",
    "nameko-tracer==1.4.0",
    "nameko-worker-postmortem==1.0.0",
    "opentelemetry-instrumentation-nameko-grpc==0.5.0",
    "opentelemetry-instrumentation-nameko==0.5.2",
)
# Their requirements, without nameko. Some have an upper bound, because a package uses names that newer ones lack.
REQUIREMENTS = (
    "cachetools>=5",
    "croniter>=6",
    "django>=4.2",
    "flask>=3",
    "googleapis-common-protos>=1.63",
    "grpcio>=1.60",
    "h2>=4.1",
    "kombu>=5.4,<6",
    "mock>=5",
    "mongomock>=4.3",
    "opentelemetry-instrumentation-wsgi>=0.50b0",
    "prometheus-client>=0.21,<1",
    "protobuf>=4.25,<5",  # nameko-grpc asks for messages by their names, in a way that went with 5
    "pymongo>=4.8",
    "pytest>=8,<10",  # nameko-sqlalchemy's fixtures are yield_fixture
    "python-dateutil>=2.8",
    "pytz>=2024.1",
    "raven>=6.10",
    "redis>=5",
    "six>=1.16",
    "sqlalchemy>=1.4.50,<2",  # nameko-sqlalchemy's fixtures call drop_all() with no engine
    "sqlalchemy-filters>=0.13",
    "sqlalchemy-utils>=0.41",
    "statsd>=4",
    "structlog>=18.2",
    "tzlocal>=5",
    "wrapt>=1.14",
)
BUILD = ("setuptools<81", "wheel")  # many have no wheel; some ask for pkg_resources when they run
SEE_OURS = """
import os, sys, sysconfig

with open(os.path.join(sysconfig.get_path("purelib"), "ours.pth"), "w") as file:
    file.write(f"import site; site.addsitedir({sys.argv[1]!r})")
"""


@nameko_env.once
def python() -> str:
    """The interpreter that can import the packages, and txservices. ``SkipTest`` where there is none to be had."""
    return nameko_env.or_skipped("packages of nameko's", lambda: made(os.path.join(ROOT, ".nameko-packages")))


def made(folder: str) -> str:
    interpreter = os.path.join(folder, "bin", "python")
    wanted = hashlib.sha256(repr((BUILD, REQUIREMENTS, PACKAGES, sys.version_info[:2])).encode()).hexdigest()[:12]
    marker = os.path.join(folder, f"installed-{wanted}")
    with open(f"{folder}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another run of the tests may be making it
        if not os.path.exists(marker):
            nameko_env.run(sys.executable, "-m", "venv", "--clear", folder)
            pip = (interpreter, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
            nameko_env.run(*pip, *BUILD)
            nameko_env.run(*pip, "--no-build-isolation", *REQUIREMENTS)
            nameko_env.run(*pip, "--no-build-isolation", "--no-deps", *PACKAGES)
            nameko_env.run(interpreter, "-c", SEE_OURS, sysconfig.get_path("purelib"))
            open(marker, "w").close()
    return interpreter


if __name__ == "__main__":
    print(python())
