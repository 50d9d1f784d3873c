// The overview: what needs attention, all services, who calls whom, and what failed last.

import { h } from "./dom.js";
import { graph, statusOf } from "./graph.js";
import { line } from "./history.js";
import { clock, count, plural, rate, share, span, took } from "./words.js";

const SHOWN = 6; // of what needs attention, and of failures
const SERVICES_SHOWN = 100;

const WORDS = { up: "up", late: "no answer", bad: "failing", gone: "gone" };

export const linkTo = (name) => `#/service/${encodeURIComponent(name)}`;

export function attention(state) {
  const found = [];
  const add = (level, key, href, ...what) => found.push({ level, key, href, what });
  const at = state.at;
  for (const service of state.services) {
    const { name } = service;
    const away = service.instances.filter((each) => each.status === "gone");
    const latest = Math.max(0, ...away.map((each) => each.seen));
    if (service.up === 0) add("bad", `gone ${name}`, linkTo(name), h("b", null, name), ` is gone: it has not answered for ${span(at - latest)}`);
    else if (away.length) add("warn", `some ${name}`, linkTo(name), h("b", null, name), `: ${service.gone} of ${plural(service.gone + service.up, "instance")} gone for ${span(at - latest)}`);
    const late = service.instances.filter((each) => each.status === "late").length;
    if (late && !away.length) add("warn", `late ${name}`, linkTo(name), h("b", null, name), `: ${plural(late, "instance")} did not answer just now`);
    const unready = service.instances.filter((each) => each.not_ready && each.status === "up");
    if (unready.length) add("bad", `unready ${name}`, linkTo(name), h("b", null, name), `: ${plural(unready.length, "instance")} not ready: ${unready[0].not_ready.replaceAll("\n", "; ")}`);
    if (service.error_rate > 0) {
      const last = failuresOf(state, name)[0];
      add("bad", `fails ${name}`, linkTo(name), h("b", null, name), ` fails: ${rate(service.error_rate)} errors/s, ${share(service.error_rate, service.rate)} of its calls`, last && `, the last by ${last.error}${last.service === name ? "" : ` in ${last.service}`}`);
    }
    if (service.up && service.max_workers && service.running >= service.max_workers) add("warn", `full ${name}`, linkTo(name), h("b", null, name), ` is at its limit: all ${count(service.max_workers)} workers run, ${count(service.waiting)} wait`);
  }
  for (const queue of state.queues) {
    if (queue.messages && !queue.consumers) add("bad", `queue ${queue.name}`, "#/queues", h("b", null, queue.name), `: ${plural(queue.messages, "message")} and nobody consumes`);
  }
  for (const queue of state.parked) {
    if (queue.messages) add("warn", `parked ${queue.queue}`, `#/parked/${encodeURIComponent(queue.queue)}`, h("b", null, queue.queue), `: ${plural(queue.messages, "message")} parked`);
  }
  return found.sort((a, b) => (a.level === b.level ? 0 : a.level === "bad" ? -1 : 1));
}

// those of a service, and those of others that made its calls fail
export function failuresOf(state, name) {
  return state.failures.filter((each) => each.service === name || each.above.some((other) => other.service === name));
}

export function overview({ state }) {
  if (!state.services.length) return nobody(state);
  const found = attention(state);
  const narrow = innerWidth < 760;
  const { picture, alone, more } = graph(state.services, state.edges, narrow);
  return [
    tiles(state),
    h("div", { class: "columns" },
      h("div", { class: "column" },
        h("section", { class: "card flush", "aria-label": "Services" }, servicesTable(state)),
        h("section", { key: "graph", class: "card", "aria-labelledby": "graph" },
          h("div", { class: "head" }, h("h2", { id: "graph" }, "Who calls whom"),
            h("p", { class: "legend" }, h("i", { class: "rpc" }), "calls ", h("i", { class: "event" }), "events ", h("i", { class: "bad" }), "errors", h("span", null, "rate · p99"))),
          picture ? h("div", { class: "scroll" }, picture) : h("p", { class: "empty" }, "No service has called another one yet, or told an event that one hears."),
          more > 0 && h("p", { key: "more", class: "quiet" }, `and ${plural(more, "more service")}: here are the busiest`),
          state.more_edges > 0 && h("p", { key: "edges", class: "quiet cut" }, `and ${plural(state.more_edges, "more line")} between services: here are the busiest`),
          alone.length > 0 && picture && h("p", { key: "alone", class: "quiet" }, "By themselves: ", alone.slice(0, 20).map((name, i) => [i > 0 && ", ", h("a", { href: linkTo(name) }, name)]), alone.length > 20 && ` and ${count(alone.length - 20)} more`))),
      h("div", { class: "column side" },
        h("section", { class: "card", "aria-labelledby": "attention" },
          h("div", { class: "head" }, h("h2", { id: "attention" }, "Needs attention")),
          found.length ? h("ul", { class: "attention" }, found.slice(0, SHOWN).map(({ level, key, href, what }) => h("li", { key, class: level }, h("a", { href }, what))))
            : h("p", { class: "fine" }, h("i"), "Nothing. All services answer, and no call fails."),
          found.length > SHOWN && h("p", { class: "quiet" }, `and ${count(found.length - SHOWN)} more`)),
        h("section", { key: "failures", class: "card", "aria-labelledby": "latest" },
          h("div", { class: "head" }, h("h2", { id: "latest" }, "Latest failures"), state.failures.length > 0 && h("a", { href: "#/failures" }, "all")),
          failureList(state, byKind(state.failures).slice(0, SHOWN))))),
  ];
}

function nobody(state) {
  return [h("section", { class: "card hello" },
    h("h1", null, "No service answers here"),
    h("p", null, `Nobody on ${state.broker.address} has told what it runs. Start a service on this broker, and it is shown here within seconds:`),
    h("pre", null, "txservices run MODULE"),
    h("p", { key: "old", class: "quiet" }, "Services of nameko, and of txservices before this version, don't answer; their queues can be seen under ", h("a", { href: "#/queues" }, "Queues"), "."))];
}

function tiles(state) {
  const sum = (what) => state.services.reduce((total, service) => total + service[what], 0);
  const up = state.services.filter((service) => service.up).length;
  const busy = state.services.filter((service) => service.up && service.rate && service.p99 !== null);
  const slowest = busy.reduce((worst, service) => (worst && worst.p99 >= service.p99 ? worst : service), null);
  const errors = sum("error_rate");
  const waiting = state.queues.reduce((total, queue) => total + (queue.messages || 0), 0);
  const gone = state.services.length - up;
  return h("div", { class: "tiles" },
    tile("Services up", count(up), gone ? `${count(gone)} gone` : plural(sum("up"), "instance"), null, gone ? "bad" : ""),
    tile("Calls", rate(sum("rate")), "a second", line("", "rate", 110, 34)),
    tile("Errors", rate(errors), errors ? `a second, ${share(errors, sum("rate"))}` : "a second", line("", "error_rate", 110, 34), errors ? "bad" : ""),
    tile("Slowest p99", slowest ? took(slowest.p99) : "–", slowest ? slowest.name : "no calls"),
    tile("In queues", count(waiting), waiting === 1 ? "message" : "messages", null, ""));
}

export function tile(name, value, under, drawn = null, level = "") {
  return h("div", { key: name, class: `tile ${level}` }, h("h3", null, name), h("p", { class: "value" }, value), h("p", { key: "under", class: "quiet" }, under), drawn);
}

function servicesTable(state) {
  const shown = state.services.slice(0, SERVICES_SHOWN);
  return [
    h("div", { class: "scroll" }, h("table", { class: "services" },
      h("thead", null, h("tr", null, h("th", { scope: "col" }, "Service"), h("th", { scope: "col", class: "n" }, "Instances"), h("th", { key: "minute", scope: "col", class: "wide" }, "Last minute"), h("th", { key: "rate", scope: "col", class: "n" }, "Calls/s"), h("th", { key: "p50", scope: "col", class: "n wide" }, "p50"), h("th", { key: "p99", scope: "col", class: "n" }, "p99"), h("th", { key: "errors", scope: "col", class: "n" }, "Errors/s"))),
      h("tbody", null, shown.map((service) => {
        const status = statusOf(service);
        return h("tr", { key: service.name, class: `is-${status}` },
          h("th", { scope: "row" }, h("a", { href: linkTo(service.name), class: "name" }, h("i", { class: `dot ${status}` }), h("span", null, service.name)), h("span", { class: "status" }, status === "late" && service.gone ? "partly up" : WORDS[status])),
          h("td", { key: "up", class: "n" }, service.gone ? [h("span", { class: service.up ? "warn" : "bad" }, count(service.up)), h("span", { class: "quiet" }, `/${count(service.up + service.gone)}`)] : count(service.up)),
          h("td", { key: "minute", class: "wide" }, line(service.name, "rate", 120, 26)),
          h("td", { key: "rate", class: "n" }, rate(service.rate)),
          h("td", { key: "p50", class: "n wide" }, took(service.p50)),
          h("td", { key: "p99", class: "n" }, took(service.p99)),
          h("td", { key: "errors", class: `n${service.error_rate ? " bad" : ""}` }, rate(service.error_rate)));
      })))),
    state.services.length > SERVICES_SHOWN && h("p", { class: "quiet pad" }, `and ${count(state.services.length - SERVICES_SHOWN)} more services`),
  ];
}

// the newest failure of each kind, with how many more there are of it: one that comes every second hides no other
export function byKind(failures) {
  const found = new Map();
  for (const each of failures) {
    const kind = JSON.stringify([each.service, each.method, each.outcome, each.error]);
    if (found.has(kind)) found.get(kind).more += 1;
    else found.set(kind, { ...each, more: 0 });
  }
  return [...found.values()];
}

export function failureList(state, failures) {
  if (!failures.length) return h("p", { class: "empty" }, "No failure is known. Each process keeps its last ones.");
  return h("ul", { class: "failures" }, failures.map((each) => h("li", { key: `${each.id} ${each.at}` },
    h("a", { href: `#/failure/${encodeURIComponent(each.id)}` },
      h("span", { class: "where" }, h("b", null, `${each.service}.${each.method}`), h("time", { title: clock(each.at) }, `${span(state.at - each.at)} ago`)),
      h("span", { key: "what", class: "what" }, h("b", null, each.outcome === "timeout" ? "timeout " : "", each.error), each.text && `: ${each.text}`),
      each.above.length > 0 && h("span", { key: "with", class: "with" }, `and with it ${each.above.map(({ service, method }) => `${service}.${method}`).join(", ")}`),
      each.more > 0 && h("span", { key: "more", class: "with" }, `and ${count(each.more)} more like it`)))));
}
