// The page: asks for the state again and again, and draws the view that the address names.

import { h, patch } from "./dom.js";
import { remember } from "./history.js";
import { attention, overview } from "./overview.js";
import { service } from "./service.js";
import { failure, failures, parked, queues } from "./trouble.js";
import { clock, count, plural } from "./words.js";

const AGAIN = 1000; // ms until the server is asked again that did not answer
const OLD = 6; // seconds without a new state, after which the page says so

const page = {
  state: null,
  heard: 0, // when the last state came, by performance.now()
  problem: "",
  token: null,
  forms: {}, // what was typed, asked and answered, by what it is about
  redraw,
  ask,
};

// The token comes in the part of the address that no browser sends. It is kept for this tab alone.
function takeToken() {
  const [, token] = /^#token=([\w-]+)$/.exec(location.hash) || [];
  if (token) {
    sessionStorage.setItem("token", token);
    history.replaceState(null, "", `${location.pathname}#/`);
  }
  page.token = sessionStorage.getItem("token");
}

async function ask(url, body) {
  const headers = page.token ? { Authorization: `Bearer ${page.token}` } : {};
  const options = { headers, cache: "no-store" };
  if (body !== undefined) {
    options.method = "POST";
    options.body = JSON.stringify(body);
    headers["Content-Type"] = "application/json";
  }
  const answer = await fetch(url, options);
  if (answer.status === 204) return null;
  const read = await answer.json();
  if (answer.ok) return read;
  if (answer.status === 401 && page.token) {
    sessionStorage.removeItem("token");
    page.token = null;
  }
  throw Object.assign(new Error(read.error), { status: answer.status });
}

async function keepAsking() {
  let last = 0;
  for (;;) {
    try {
      if (document.hidden) await new Promise((done) => document.addEventListener("visibilitychange", done, { once: true }));
      const state = await ask(`state.json?after=${last}`);
      if (state) {
        last = state.number;
        page.state = state;
        page.heard = performance.now();
        remember(state);
      }
      page.problem = "";
    } catch (error) {
      page.problem = error.status ? error.message : "The page's server does not answer: was it stopped?";
      redraw();
      await new Promise((done) => setTimeout(done, AGAIN));
    }
    redraw();
  }
}

const views = [
  [/^$/, () => overview(page)],
  [/^service\/(.+)$/, (name) => service(page, name)],
  [/^failures$/, () => failures(page)],
  [/^failure\/(.+)$/, (id) => failure(page, id)],
  [/^queues$/, () => queues(page)],
  [/^parked$/, () => parked(page, "")],
  [/^parked\/(.+)$/, (queue) => parked(page, queue)],
];

function where() {
  return location.hash.replace(/^#\/?/, "");
}

function redraw() {
  const main = document.getElementById("main");
  patch(document.getElementById("header"), header());
  if (!page.state) {
    patch(main, [h("p", { class: "empty" }, page.problem ? "" : "Asking the services…")]);
    return;
  }
  const place = where();
  for (const [pattern, view] of views) {
    const match = pattern.exec(place);
    if (match) {
      const shown = view(...match.slice(1).map(decode));
      patch(main, [h("div", { key: place, class: "view" }, shown)]);
      document.title = titleOf(page.state);
      document.documentElement.dataset.number = page.state.number;
      return;
    }
  }
  patch(main, [h("p", { class: "empty" }, "There is no such view. ", h("a", { href: "#/" }, "To the overview"))]);
}

function decode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function titleOf(state) {
  const found = attention(state).length;
  return found ? `(${found}) txservices` : "txservices";
}

function header() {
  const { state } = page;
  const old = (performance.now() - page.heard) / 1000;
  const live = state && !page.problem && old < OLD;
  const parkedCount = state ? state.parked.reduce((sum, each) => sum + each.messages, 0) : 0;
  const tabs = [
    ["", "Overview", 0],
    ["failures", "Failures", state ? state.failures.length + state.more_failures : 0],
    ["queues", "Queues", 0],
    ["parked", "Parked", parkedCount],
  ];
  const here = where().split("/")[0].replace(/^failure$/, "failures").replace(/^service$/, "");
  return [
    h("div", { class: "bar" },
      h("a", { class: "brand", href: "#/" }, h("img", { src: "icon.svg", alt: "", width: 26, height: 26 }), h("b", null, "txservices")),
      h("nav", { "aria-label": "Views" }, tabs.map(([place, name, number]) =>
        h("a", { key: place, href: `#/${place}`, "aria-current": here === place ? "page" : null }, name,
          number > 0 && h("span", { class: `number${place === "parked" || place === "failures" ? " bad" : ""}` }, count(number))))),
      h("div", { class: "right" },
        !page.token && h("span", { class: "chip", title: "Open the address that was printed at the start, with its token, to call methods and to see to parked messages." }, "reading only"),
        h("span", { class: `chip live ${live ? "on" : "off"}`, role: "status" }, h("i"), live ? "live" : state ? `last heard ${clock(state.at)}` : "not connected"))),
    state && h("p", { class: "under" }, h("span", null, state.broker.address), " · ", plural(state.processes.up + state.processes.late, "process", "processes"),
      h("span", { class: "quiet wide" }, ` answered in ${(state.asked * 1000).toFixed(0)} ms`)),
    page.problem && h("p", { key: "problem", class: "notice bad", role: "alert" }, page.problem),
    !page.problem && state && state.broker.away && h("p", { key: "away", class: "notice bad", role: "alert" }, `No connection to the broker: ${state.broker.away}. What you see is what was known before.`),
  ];
}

takeToken();
addEventListener("hashchange", () => {
  takeToken();
  redraw();
  scrollTo(0, 0);
});
addEventListener("resize", redraw);
redraw();
keepAsking();
