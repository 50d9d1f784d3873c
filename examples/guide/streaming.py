"""Bodies piece by piece: a report as it is written, a file as it comes, and the progress of a job in a browser."""

import hashlib

from twisted.internet import reactor
from twisted.internet.task import deferLater

from txservices import EventStream, ServerSentEvent, http

PAGE = """<!doctype html>
<progress id="bar" max="10" value="0"></progress>
<script>
  const source = new EventSource("/progress");
  source.onmessage = ({ data }) => { document.getElementById("bar").value = data; };
  source.addEventListener("done", () => source.close());
</script>
"""


class Jobs:
    name = "jobs"

    @http("GET", "/report/<int:rows>")
    def report(self, request, rows):
        return 200, {"Content-Type": "text/csv"}, (f"{row},{row * row}\n" for row in range(rows))

    @http("PUT", "/files", stream=True)
    async def put(self, request):
        found = hashlib.sha256()
        async for piece in request.stream:
            found.update(piece)
        return {"sha256": found.hexdigest()}

    @http("GET", "/progress")
    def progress(self, request):
        return EventStream(self.steps(int(request.last_event_id or 0)), retry=1)

    async def steps(self, last):
        for step in range(last + 1, 11):
            await deferLater(reactor, 0.01)
            yield ServerSentEvent(str(step), id=str(step))
        yield ServerSentEvent("", event="done")

    @http("GET", "/")
    def page(self, request):
        return 200, {"Content-Type": "text/html; charset=utf-8"}, PAGE
