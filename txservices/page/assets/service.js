// One service: its numbers, its methods (to be called from here), its events, its URLs, and where it runs.

import { h } from "./dom.js";
import { statusOf } from "./graph.js";
import { line } from "./history.js";
import { byKind, failureList, failuresOf, linkTo, tile } from "./overview.js";
import { clock, count, example, plural, rate, share, span, took, whole } from "./words.js";

const KINDS = { Rpc: "RPC", EventHandler: "event", HttpRequestHandler: "HTTP", Timer: "timer", Consumer: "queue", WebSocketRpc: "WebSocket" };

export function service(page, name) {
  const { state } = page;
  const found = state.services.find((each) => each.name === name);
  if (!found) return [back(), h("p", { class: "empty" }, `No process that answers has a service ${name}.`)];
  const failures = failuresOf(state, name);
  const status = statusOf(found);
  const callers = state.edges.filter((edge) => edge.to === name && edge.from !== name);
  const called = state.edges.filter((edge) => edge.from === name && edge.to !== name);
  return [
    back(),
    h("div", { class: "title" }, h("h1", null, h("i", { class: `dot ${status}` }), h("span", null, name)), found.versions.map((version) => h("span", { key: version, class: "chip" }, version)), h("span", { key: "status", class: "quiet" }, found.up ? `${plural(found.up, "instance")} up` : "gone", found.gone && found.up ? `, ${count(found.gone)} gone` : "")),
    found.doc && h("p", { key: "doc", class: "doc" }, found.doc),
    h("div", { key: "tiles", class: "tiles" },
      tile("Calls", rate(found.rate), "a second", line(name, "rate", 110, 34)),
      tile("Half within", took(found.p50), "p50"),
      tile("99 of 100 within", took(found.p99), "p99, of its slowest instance"),
      tile("Errors", rate(found.error_rate), found.error_rate ? `a second, ${share(found.error_rate, found.rate)}` : "a second", line(name, "error_rate", 110, 34), found.error_rate ? "bad" : ""),
      tile("Workers", count(found.running), `run, of ${count(found.max_workers)}${found.waiting ? `; ${count(found.waiting)} wait` : ""}`)),
    h("div", { key: "columns", class: "columns" },
      h("div", { class: "column" },
        h("section", { class: "card", "aria-labelledby": "methods" }, h("div", { class: "head" }, h("h2", { id: "methods" }, "Methods"), !page.token && h("p", { class: "quiet" }, "To call one, open the address that was printed at the start.")),
          found.methods.length ? h("ul", { class: "methods" }, found.methods.map((method) => methodRow(page, found, method))) : h("p", { class: "empty" }, "It has told of no method.")),
        h("section", { key: "instances", class: "card flush", "aria-labelledby": "instances" }, h("div", { class: "head pad" }, h("h2", { id: "instances" }, "Instances")), instances(state, found))),
      h("div", { class: "column side" },
        neighbours("Called by", callers, "from", "Nobody that answers here calls it now. Programs that are no services are not shown."),
        neighbours("Calls", called, "to", "It has no proxy of another service, and tells no event that one hears."),
        found.tells.length > 0 && h("section", { key: "tells", class: "card" }, h("div", { class: "head" }, h("h2", null, "Events it tells")), h("p", { class: "tags" }, found.tells.map((each) => h("code", { key: each }, each)))),
        h("section", { key: "failures", class: "card" }, h("div", { class: "head" }, h("h2", null, "Its latest failures")), failureList(state, byKind(failures).slice(0, 8))))),
  ];
}

export function back(to = "#/", name = "Overview") {
  return h("p", { key: "back", class: "back" }, h("a", { href: to }, `← ${name}`));
}

function neighbours(title, edges, other, nobody) {
  return h("section", { key: title, class: "card" }, h("div", { class: "head" }, h("h2", null, title)),
    edges.length ? h("ul", { class: "neighbours" }, edges.map((edge) => h("li", { key: `${edge[other]} ${edge.kind}`, class: edge.error_rate ? "bad" : "" },
      h("a", { href: linkTo(edge[other]) }, edge[other]), h("span", { class: "quiet" }, edge.kind === "event" ? " by events" : ""),
      h("span", { key: "n", class: "n" }, `${rate(edge.rate)}/s · p99 ${took(edge.p99)}`, edge.error_rate > 0 && h("b", { class: "bad" }, ` · ${rate(edge.error_rate)} errors/s`)))))
      : h("p", { class: "empty" }, nobody));
}

function methodRow(page, found, method) {
  const key = `${method.entrypoint} ${method.method} ${method.on}`;
  const form = page.forms[`call ${found.name} ${key}`];
  const callable = method.entrypoint === "Rpc" && page.token && found.up > 0;
  const open = () => {
    const name = `call ${found.name} ${key}`;
    if (page.forms[name]) delete page.forms[name];
    else page.forms[name] = {};
    page.redraw();
  };
  return h("li", { key },
    h("div", { class: "line" },
      h("span", { class: "kind" }, KINDS[method.entrypoint] || method.entrypoint),
      h("span", { key: "name", class: "signature" }, h("b", null, method.method), h("span", null, method.signature), method.on && h("span", { key: "on", class: "on" }, onWhat(method))),
      h("span", { key: "numbers", class: "n" }, method.count ? [`${rate(method.rate)}/s`, h("span", { class: "wide" }, ` · p50 ${took(method.p50)}`), ` · p99 ${took(method.p99)}`, method.error_rate > 0 && h("b", { class: "bad" }, ` · ${rate(method.error_rate)} errors/s`)] : !method.running && !method.waiting && "not called", workers(method)),
      callable && h("button", { key: "call", type: "button", class: "small", "aria-expanded": String(Boolean(form)), onclick: open }, form ? "Close" : "Call")),
    method.doc && h("p", { key: "doc", class: "doc" }, method.doc),
    form && callable && callForm(page, found.name, method, form));
}

function workers(method) {
  if (!method.running && !method.waiting) return null;
  const running = method.max_workers ? `${count(method.running)} of ${count(method.max_workers)}` : count(method.running);
  return h("span", { key: "workers", class: method.waiting ? "warn" : "" }, `${method.count ? " · " : ""}${running} run, ${count(method.waiting)} wait`);
}

function onWhat(method) {
  if (method.entrypoint === "Timer") return ` every ${method.on} s`;
  return ` on ${method.on}`;
}

function callForm(page, name, method, form) {
  const submit = async (event) => {
    event.preventDefault();
    if (form.busy) return;
    const text = event.target.elements.arguments.value.trim() || "[]";
    let given;
    try {
      given = JSON.parse(text);
      if (given === null || typeof given !== "object") throw new Error("write an array, or an object");
    } catch (error) {
      form.answer = { mistake: `These are no arguments in JSON: ${error.message}` };
      page.redraw();
      return;
    }
    form.busy = true;
    form.answer = null;
    page.redraw();
    try {
      // as it was typed: a long number would not be the same after it was read here
      form.answer = await page.ask("call", { service: name, method: method.method, arguments: text });
    } catch (error) {
      form.answer = { mistake: error.message };
    }
    form.busy = false;
    page.redraw();
  };
  const { answer } = form;
  return h("form", { key: "form", class: "call", onsubmit: submit },
    h("label", null, "Arguments in JSON: an object by names, or an array",
      h("textarea", { name: "arguments", rows: 3, spellcheck: "false", value: example(method.signature), onkeydown: (event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) event.target.form.requestSubmit(); } })),
    h("p", { class: "actions" }, h("button", { type: "submit", class: "main", disabled: Boolean(form.busy) }, form.busy ? "Calling…" : `Call ${name}.${method.method}`), h("span", { class: "quiet wide" }, "or Ctrl+Enter. The method really runs.")),
    answer && answer.mistake && h("p", { key: "mistake", class: "notice bad", role: "alert" }, answer.mistake),
    answer && !answer.mistake && h("div", { key: "answer", class: `answer ${answer.error ? "bad" : ""}`, role: "status" },
      h("p", null, h("b", null, answer.error ? answer.error : "Result"), h("span", { class: "quiet" }, ` after ${took(answer.seconds)}`)),
      h("pre", null, answer.error ? answer.text : answer.result),
      answer.cut > 0 && h("p", { key: "cut", class: "quiet" }, `and ${count(answer.cut)} more characters`)));
}

function instances(state, found) {
  return [h("div", { class: "scroll" }, h("table", null,
    h("thead", null, h("tr", null, h("th", { scope: "col" }, "Host, pid"), h("th", { key: "state", scope: "col" }, "State"), h("th", { key: "since", scope: "col", class: "n wide" }, "Up for"), h("th", { key: "rate", scope: "col", class: "n" }, "Calls/s"), h("th", { key: "p99", scope: "col", class: "n" }, "p99"), h("th", { key: "errors", scope: "col", class: "n" }, "Errors/s"), h("th", { key: "workers", scope: "col", class: "n wide" }, "Workers"))),
    h("tbody", null, found.instances.map((each) => {
      const gone = each.status === "gone";
      return h("tr", { key: each.id, class: `is-${each.status}` },
        h("th", { scope: "row" }, h("i", { class: `dot ${gone ? "gone" : each.error_rate ? "bad" : each.status}` }), `${each.host}, ${each.pid}`, each.version && h("span", { class: "quiet" }, ` ${each.version}`)),
        h("td", { key: "state", title: clock(each.seen) }, gone ? `gone for ${span(state.at - each.seen)}` : each.status === "late" ? "late" : each.not_ready ? h("span", { class: "warn" }, `not ready: ${each.not_ready.replaceAll("\n", "; ")}`) : each.state || "up"),
        h("td", { key: "since", class: "n wide", title: whole(each.since) }, gone ? "–" : span(state.at - each.since)),
        h("td", { key: "rate", class: "n" }, gone ? "–" : rate(each.rate)),
        h("td", { key: "p99", class: "n" }, gone ? "–" : took(each.p99)),
        h("td", { key: "errors", class: `n${!gone && each.error_rate ? " bad" : ""}` }, gone ? "–" : rate(each.error_rate)),
        h("td", { key: "workers", class: "n wide" }, gone ? "–" : `${count(each.running)} of ${count(each.max_workers)}`));
    })))),
  found.more_instances > 0 && h("p", { class: "quiet pad" }, `and ${count(found.more_instances)} more; those in trouble are listed first`)];
}
