// What went wrong: failures and the tree of one's calls, queues, and parked messages.

import { h } from "./dom.js";
import { failureList, linkTo } from "./overview.js";
import { back } from "./service.js";
import { count, plural, span, took, whole } from "./words.js";

// Failures ------------------------------------------------------------------------------------------------------------

export function failures({ state }) {
  return [h("div", { class: "title" }, h("h1", null, "Failures"), h("span", { class: "quiet" }, "The latest of all processes, newest first")),
    h("section", { class: "card" }, failureList(state, state.failures), state.more_failures > 0 && h("p", { class: "quiet" }, `and ${count(state.more_failures)} more`))];
}

export function failure(page, id) {
  const form = (page.forms[`failure ${id}`] ||= {});
  if (!form.asked) {
    form.asked = true;
    page.ask(`failure.json?id=${encodeURIComponent(id)}`).then((found) => { form.found = found; }, (error) => { form.problem = error.message; }).then(page.redraw);
  }
  const { found } = form;
  const head = back("#/failures", "Failures");
  if (!found) return [head, h("p", { class: "empty" }, form.problem || "Asking…")];
  return [
    head,
    h("div", { class: "title" }, h("h1", null, h("i", { class: "dot bad" }), h("span", null, `${found.service}.${found.method}`)), h("span", { class: "chip bad" }, found.outcome)),
    h("p", { key: "error", class: "error" }, h("b", null, found.error), found.text && `: ${found.text}`),
    h("p", { key: "when", class: "quiet" }, `${whole(found.at)}, ${span(page.state.at - found.at)} ago, after ${took(found.seconds)}, on ${found.host}, pid ${found.pid}`),
    h("div", { key: "columns", class: "columns" },
      h("div", { class: "column" },
        h("section", { class: "card", "aria-labelledby": "tree" }, h("div", { class: "head" }, h("h2", { id: "tree" }, "The calls around it"), h("p", { class: "legend" }, h("i", { class: "bad" }), "failed ", h("i", { class: "plain" }), "no failure known")),
          h("ul", { class: "tree" }, branch(found.tree)),
          found.more_calls > 0 && h("p", { class: "quiet cut" }, `and ${plural(found.more_calls, "more call")}`)),
        h("section", { key: "trace", class: "card", "aria-labelledby": "trace" }, h("div", { class: "head" }, h("h2", { id: "trace" }, "Traceback")), h("pre", { class: "trace" }, found.traceback || "None was told."))),
      h("div", { class: "column side" },
        h("section", { class: "card" }, h("div", { class: "head" }, h("h2", null, "Arguments")),
          Object.keys(found.arguments).length ? h("dl", null, Object.entries(found.arguments).map(([name, value]) => h("div", { key: name }, h("dt", null, name), h("dd", null, value)))) : h("p", { class: "empty" }, "None")),
        h("section", { key: "ids", class: "card" }, h("div", { class: "head" }, h("h2", null, "Call ids"), h("p", { class: "quiet" }, "as in the logs")), h("ol", { class: "ids" }, found.stack.map((each) => h("li", { key: each }, h("code", null, each))))))),
  ];
}

function branch(node) {
  const failed = node.failure;
  const name = [h("b", null, node.service === "standalone_rpc_proxy" ? "a program" : `${node.service}.${node.method}`)];
  return h("li", { key: node.id },
    h("div", { class: `call ${failed ? "bad" : ""} ${node.meant ? "meant" : ""}` },
      h("i", { class: `dot ${failed ? "bad" : "plain"}` }),
      failed && !node.meant ? h("a", { href: `#/failure/${encodeURIComponent(node.id)}` }, name) : h("span", null, name),
      failed && h("span", { key: "took", class: "quiet" }, took(failed.seconds)),
      failed && h("span", { key: "what", class: "what" }, h("b", null, failed.error), failed.text && `: ${failed.text}`)),
    node.calls.length > 0 && h("ul", null, node.calls.map(branch)));
}

// Queues --------------------------------------------------------------------------------------------------------------

export function queues({ state }) {
  const most = Math.max(1, ...state.queues.map((each) => each.messages));
  return [h("div", { class: "title" }, h("h1", null, "Queues"), h("span", { class: "quiet" }, state.queues_by_management ? "All that RabbitMQ's management lists" : "Of the services that answer; with --management URL all of the broker's")),
    state.queues_problem && h("p", { key: "problem", class: "notice bad", role: "alert" }, `The list is not up to date: ${state.queues_problem}`),
    h("section", { class: "card flush" }, state.queues.length ? h("div", { class: "scroll" }, h("table", null,
      h("thead", null, h("tr", null, h("th", { scope: "col" }, "Queue"), h("th", { key: "m", scope: "col", class: "n" }, "Messages"), h("th", { key: "c", scope: "col", class: "n" }, "Consumers"), h("th", { key: "s", scope: "col", class: "wide" }, "Service"))),
      h("tbody", null, state.queues.map((each) => h("tr", { key: each.name },
        h("th", { scope: "row", class: "mono" }, each.name),
        h("td", { key: "m", class: "n" }, h("span", { class: "amount" }, h("i", { "width%": Math.round((100 * each.messages) / most) }), h("span", null, count(each.messages)))),
        h("td", { key: "c", class: `n${each.messages && !each.consumers ? " bad" : ""}` }, each.consumers ? count(each.consumers) : "nobody"),
        h("td", { key: "s", class: "wide" }, each.service && h("a", { href: linkTo(each.service) }, each.service))))))) : h("p", { class: "empty pad" }, "No queue of a service is there yet.")),
    state.more_queues > 0 && h("p", { class: "quiet" }, `and ${plural(state.more_queues, "more queue")}: here are those with most messages`)];
}

// Parked messages -----------------------------------------------------------------------------------------------------

export function parked(page, queue) {
  const { state } = page;
  if (queue) return parkedIn(page, queue);
  return [h("div", { class: "title" }, h("h1", null, "Parked messages"), h("span", { class: "quiet" }, "They failed for good, and wait for you")),
    h("section", { class: "card flush" }, state.parked.length ? h("table", null,
      h("thead", null, h("tr", null, h("th", { scope: "col" }, "Queue"), h("th", { key: "m", scope: "col", class: "n" }, "Messages"))),
      h("tbody", null, state.parked.map((each) => h("tr", { key: each.queue },
        h("th", { scope: "row", class: "mono" }, h("a", { href: `#/parked/${encodeURIComponent(each.queue)}` }, each.queue)),
        h("td", { key: "m", class: `n${each.messages ? " bad" : ""}` }, count(each.messages)))))) : h("p", { class: "empty pad" }, "Nothing is parked. A message is parked when its handler has a retry policy, and its last attempt failed."))];
}

function parkedIn(page, queue) {
  const { state } = page;
  const known = state.parked.find((each) => each.queue === queue);
  const form = (page.forms[`parked ${queue}`] ||= { chosen: new Set() });
  const act = async (url, body, done) => {
    form.busy = true;
    form.told = form.sure = null;
    page.redraw();
    try {
      const answer = await page.ask(url, { queue, ...body });
      done(answer);
    } catch (error) {
      form.told = { bad: true, lines: [error.message] };
    }
    form.busy = false;
    page.redraw();
  };
  const look = () => act("parked", {}, (answer) => {
    form.found = answer;
    form.chosen = new Set(answer.messages.map((each) => each.id).filter((id) => form.chosen.has(id)));  // a choice outlasts another look
  });
  const change = (url, done, body) => act(url, body, (answer) => {
    const stayed = Object.entries(answer.stayed).map(([reason, number]) => `${count(number)} stay parked: ${reason}`);
    form.told = { bad: stayed.length > 0, lines: [`${done} ${plural(answer.done, "message")}.`, ...stayed] };
    form.later = true;
  }).then(() => { if (form.later) { form.later = false; const { told } = form; return look().then(() => { form.told = form.told || told; page.redraw(); }); } });
  if (!form.asked && page.token) {
    form.asked = true;
    look();
  }
  const chosen = [...form.chosen];
  const selection = () => (chosen.length ? { ids: chosen } : { all: true });
  const many = chosen.length ? plural(chosen.length, "message") : "all messages";
  return [
    back("#/parked", "Parked messages"),
    h("div", { class: "title" }, h("h1", null, h("span", { class: "mono" }, queue)), h("span", { class: "quiet" }, known ? `${plural(known.messages, "message")} now` : "")),
    !page.token && h("p", { key: "token", class: "notice" }, "To look at them, to replay or to discard them, open the address that was printed at the start, with its token."),
    page.token && h("p", { key: "actions", class: "actions" },
      h("button", { key: "replay", type: "button", class: "main", disabled: Boolean(form.busy), onclick: () => change("replay", "Replayed", selection()) }, `Replay ${many}`),
      form.sure
        ? [h("button", { key: "sure", type: "button", class: "danger", disabled: Boolean(form.busy), onclick: () => change("discard", "Discarded", selection()) }, `Delete ${many} for good`), h("button", { key: "no", type: "button", onclick: () => { form.sure = false; page.redraw(); } }, "Keep them")]
        : h("button", { key: "discard", type: "button", disabled: Boolean(form.busy), onclick: () => { form.sure = true; page.redraw(); } }, `Discard ${many}…`),
      h("button", { key: "look", type: "button", disabled: Boolean(form.busy), onclick: look }, form.busy ? "Working…" : "Look again")),
    form.told && h("div", { key: "told", class: `notice ${form.told.bad ? "bad" : "good"}`, role: "status" }, form.told.lines.map((each) => h("p", null, each))),
    form.found && h("section", { key: "found", class: "card flush" },
      form.found.messages.length ? h("ul", { class: "parked" }, form.found.messages.map((each, i) => message(page, form, each, i))) : h("p", { class: "empty pad" }, "It is empty."),
      form.found.more > 0 && h("p", { key: "more", class: "quiet pad" }, `and ${count(form.found.more)} more: here are the oldest`)),
  ];
}

function message(page, form, each, i) {
  const tick = (event) => {
    if (event.target.checked) form.chosen.add(each.id);
    else form.chosen.delete(each.id);
    page.redraw();
  };
  return h("li", { key: each.id || i },
    h("div", { class: "line" },
      h("label", null, h("input", { type: "checkbox", disabled: !each.id, "aria-label": `Choose message ${each.id}`, onchange: tick }), h("span", { class: "chip bad" }, each.reason)),
      h("span", { key: "error", class: "what" }, each.error),
      h("span", { key: "since", class: "quiet n", title: each.since || "" }, plural(each.attempts, "attempt"), each.ago !== null && `, parked ${span(each.ago)} ago`)),
    h("pre", { key: "body" }, each.body),
    h("p", { key: "id", class: "quiet mono" }, each.id || "without an id: it can only be chosen together with all"));
}
