"""Views of Flask and of Django, which call services through flask-nameko and django-nameko. Prints what they answer.

python views.py flask|django AMQP_URI
"""

import json
import sys
from concurrent.futures import ThreadPoolExecutor

from txservices.migration.imports import install

install()  # the one line that is added

framework, uri = sys.argv[1:]


def by_flask():
    from flask import Flask
    from flask_nameko import FlaskPooledClusterRpcProxy

    app = Flask(__name__)
    app.config.update(
        NAMEKO_AMQP_URI=uri, NAMEKO_INITIAL_CONNECTIONS=1, NAMEKO_MAX_CONNECTIONS=3, NAMEKO_RPC_TIMEOUT=60
    )
    services = FlaskPooledClusterRpcProxy()
    services.init_app(app)

    @app.route("/greet/<name>")
    def greet(name):
        return services.uses_views.greet(name)

    @app.route("/fail")
    def fail():
        try:
            services.uses_views.fail()
        except Exception as error:
            return f"{type(error).__name__} {error}"

    return lambda path: app.test_client().get(path).text


def by_django():
    import django
    from django.conf import settings
    from django.http import HttpResponse
    from django.test import RequestFactory
    from django.urls import path, resolve

    pool = {"AMQP_URI": uri, "POOL_SIZE": 2, "POOL_CONTEXT_DATA": {"language": "en"}, "POOL_TIMEOUT": 60}
    settings.configure(
        ROOT_URLCONF=__name__,
        NAMEKO_CONFIG={"default": pool, "french": {"POOL_CONTEXT_DATA": {"language": "fr"}}},
    )
    django.setup()
    from django_nameko import dispatch, get_pool

    def greet(request, name, pool="default"):
        with get_pool(pool).next() as services:
            return HttpResponse(services.uses_views.greet(name))

    def changed(request):
        """A change of the context, which goes with this block's calls and no others."""
        with get_pool().next() as services:
            services._worker_ctx.data["language"] = "fr"
            services._worker_ctx.data["more"] = 1
            return HttpResponse(services.uses_views.greet("changed"))

    def fail(request):
        try:
            with get_pool().next() as services:
                services.uses_views.fail()
        except Exception as error:
            return HttpResponse(f"{type(error).__name__} {error}")

    def tell(request):
        dispatch("views", "seen", {"by": "django"})
        return HttpResponse("told")

    global urlpatterns
    urlpatterns = [
        path("greet/<name>", greet),
        path("french/<name>", greet, {"pool": "french"}),
        path("changed", changed),
        path("fail", fail),
        path("tell", tell),
    ]

    def get(url):
        found = resolve(url)
        return found.func(RequestFactory().get(url), *found.args, **found.kwargs).content.decode()

    return get


get = {"flask": by_flask, "django": by_django}[framework]()
with ThreadPoolExecutor(3) as threads:
    answers = list(threads.map(get, [f"/greet/{number}" for number in range(6)]))
answers.append(get("/fail"))
if framework == "django":
    answers += [get(each) for each in ("/french/ada", "/changed", "/greet/ada", "/greet/bob", "/tell")]
print(json.dumps(answers), flush=True)
