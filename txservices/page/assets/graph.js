// The graph of who calls whom: services in layers, callers before those whom they call.
//
// The places depend on the names and the edges alone. So they stay where they are while numbers change.

import { h } from "./dom.js";
import { rate, took } from "./words.js";

const HEIGHT = 56;
const GAP = 28; // between services of one layer
const BETWEEN = 184; // between layers, for what is written on the edges
const BELOW = 74; // the same from top to bottom
const LABEL = [92, 32]; // the room that the numbers of an edge take
const BESIDE = [LABEL[0] / 2 + 2, LABEL[1] / 2]; // from an edge to the middle of numbers that stand beside it
const SERVICES_MAX = 60;

let last = { key: "", places: null };

export function graph(services, edges, narrow) {
  const names = new Set(services.map((service) => service.name));
  let drawn = edges.filter((edge) => names.has(edge.from) && names.has(edge.to));
  const joined = new Set(drawn.flatMap((edge) => [edge.from, edge.to]));
  let shown = services.filter((service) => joined.has(service.name));
  const alone = services.filter((service) => !joined.has(service.name)).map((service) => service.name);
  const more = shown.length - SERVICES_MAX;
  if (more > 0) {
    const busiest = [...shown].sort((a, b) => b.rate - a.rate || (a.name < b.name ? -1 : 1)).slice(0, SERVICES_MAX);
    const kept = new Set(busiest.map((service) => service.name));
    shown = shown.filter((service) => kept.has(service.name));
    drawn = drawn.filter((edge) => kept.has(edge.from) && kept.has(edge.to));
  }
  drawn = [...drawn].sort((a, b) => order(a.from, b.from) || order(a.to, b.to) || order(a.kind, b.kind));
  const key = JSON.stringify([narrow, shown.map((each) => each.name), drawn.map((each) => [each.from, each.to, each.kind])]);
  if (last.key !== key) last = { key, places: arrange(shown.map((each) => each.name), drawn, narrow) };
  return { picture: shown.length ? draw(shown, drawn, last.places, narrow) : null, alone, more: Math.max(more, 0) };
}

const order = (a, b) => (a < b ? -1 : a > b ? 1 : 0);

// Each service has a place in its layer. An edge over several layers has a bend in each layer between.
function arrange(names, edges, narrow) {
  const layer = layers(names, edges);
  const rows = [];
  for (const name of [...names].sort(order)) (rows[layer.get(name)] ||= []).push(name);
  const chains = new Map(edges.map((edge) => [edge, chain(edge, layer, rows)]));
  const near = new Map(rows.flat().map((name) => [name, []]));
  for (const passed of chains.values()) {
    for (let i = 1; i < passed.length; i += 1) {
      near.get(passed[i - 1]).push(passed[i]);
      near.get(passed[i]).push(passed[i - 1]);
    }
  }
  for (let turn = 0; turn < 8; turn += 1) {
    for (const row of turn % 2 ? [...rows].reverse() : rows) {
      const at = new Map(rows.flatMap((each) => each.map((name, i) => [name, (i + 0.5) / each.length])));
      const pull = new Map(row.map((name) => [name, mean(near.get(name).map((each) => at.get(each)), at.get(name))]));
      row.sort((a, b) => pull.get(a) - pull.get(b) || order(a, b));
    }
  }
  const known = new Set(names);
  const broad = (name) => (known.has(name) ? Math.max(132, Math.min(name.length * 8.2 + 36, 260)) : narrow ? 30 : 0);
  const high = (name) => (known.has(name) ? HEIGHT : narrow ? HEIGHT : 22);
  // `along` goes from layer to layer, `across` from place to place in one
  const size = narrow ? broad : high;
  const lengths = rows.map((row) => row.reduce((sum, name) => sum + size(name) + GAP, -GAP));
  const across = Math.max(...lengths);
  const places = new Map();
  let along = 0;
  rows.forEach((row, i) => {
    const deepest = narrow ? HEIGHT : Math.max(...row.map(broad));
    let place = (across - lengths[i]) / 2;
    for (const name of row) {
      const start = along + (narrow ? 0 : (deepest - broad(name)) / 2);
      const [x, y] = narrow ? [place, start] : [start, place];
      places.set(name, { x, y, width: broad(name), height: high(name), layer: i });
      place += size(name) + GAP;
    }
    along += deepest + (narrow ? BELOW : BETWEEN);
  });
  along -= narrow ? BELOW : BETWEEN;
  const { paths, labels, deepest } = route(places, chains, narrow);
  const [width, height] = narrow ? [across, along] : [along, across];
  const [left, top] = [0, 1].map((i) => Math.min(0, ...labels.map((each) => [each.x, each.y][i] - LABEL[i] / 2)));
  const [right, bottom] = [0, 1].map((i) => Math.max(i ? deepest : 0, [width, height][i], ...labels.map((each) => [each.x, each.y][i] + LABEL[i] / 2)));
  return { places, paths, left, top, width: right - left, height: bottom - top };
}

// what an edge passes: its two ends, and a bend in each layer between them
function chain(edge, layer, rows) {
  const [from, to] = [layer.get(edge.from), layer.get(edge.to)];
  const step = from < to ? 1 : -1;
  const bends = [];
  for (let i = from + step; from !== to && i !== to; i += step) {
    const bend = `\n${edge.from}\n${edge.to}\n${edge.kind}\n${i}`;
    rows[i].push(bend);
    bends.push(bend);
  }
  return [edge.from, ...bends, edge.to];
}

const mean = (values, otherwise) => (values.length ? values.reduce((a, b) => a + b, 0) / values.length : otherwise);

// the longest way to each service, without the edges that lead back
function layers(names, edges) {
  const calls = new Map(names.map((name) => [name, []]));
  for (const { from, to } of edges) if (from !== to) calls.get(from).push(to);
  const called = new Set(edges.filter(({ from, to }) => from !== to).map(({ to }) => to));
  const state = new Map();
  const finished = [];
  const back = new Set();
  const visit = (name) => {
    state.set(name, "open");
    for (const each of [...calls.get(name)].sort(order)) {
      if (state.get(each) === "open") back.add(`${name}\n${each}`);
      else if (!state.has(each)) visit(each);
    }
    state.set(name, "done");
    finished.push(name);
  };
  const first = [...names].sort((a, b) => called.has(a) - called.has(b) || order(a, b));
  for (const name of first) if (!state.has(name)) visit(name);
  const layer = new Map(names.map((name) => [name, 0]));
  for (const name of finished.reverse()) {
    for (const each of calls.get(name)) {
      if (!back.has(`${name}\n${each}`)) layer.set(each, Math.max(layer.get(each), layer.get(name) + 1));
    }
  }
  return layer;
}

// The lines. Edges leave and arrive side by side, in the order of where they lead.
function route(places, chains, narrow) {
  const centre = (name) => (narrow ? places.get(name).x + places.get(name).width / 2 : places.get(name).y + places.get(name).height / 2);
  const ends = new Map(); // those of one side of a service
  for (const [edge, passed] of chains) {
    const [from, to] = [places.get(edge.from), places.get(edge.to)];
    if (from.layer === to.layer) continue;
    const down = from.layer < to.layer;
    const lead = [[edge.from, down, passed[1], "from"], [edge.to, !down, passed[passed.length - 2], "to"]];
    for (const [name, after, next, end] of lead) {
      const side = `${name}\n${after}`;
      if (!ends.has(side)) ends.set(side, []);
      ends.get(side).push({ edge, end, at: centre(next) });
    }
  }
  const ports = new Map();
  for (const all of ends.values()) {
    all.sort((a, b) => a.at - b.at || order(b.edge.kind, a.edge.kind) || order(a.end, b.end));
    all.forEach(({ edge, end }, i) => ports.set(`${keyOf(edge)}\n${end}`, (i + 1) / (all.length + 1)));
  }
  const paths = new Map();
  const bends = new Map();
  let deepest = 0;
  for (const [edge, passed] of chains) {
    const [a, b] = [places.get(edge.from), places.get(edge.to)];
    let curves;
    if (a.layer === b.layer) {
      const [x1, y1] = [a.x + a.width * 0.62, a.y + a.height];
      const [x2, y2] = [b.x + b.width * 0.38, b.y + b.height + 7];
      const deep = Math.max(y1, y2) + 48;
      deepest = Math.max(deepest, deep);
      curves = [[x1, y1, x1, deep, x2, deep, x2, y2]];
    } else {
      const down = a.layer < b.layer;
      const points = passed.map((name, i) => {
        const place = places.get(name);
        const end = i === 0 ? "from" : i === passed.length - 1 ? "to" : "";
        const part = end ? ports.get(`${keyOf(edge)}\n${end}`) : 0.5;
        const side = !end ? 0.5 : (end === "from") === down ? 1 : 0;
        const head = end === "to" ? (down ? -7 : 7) : 0; // room for the arrow's head
        return narrow ? [place.x + place.width * part, place.y + place.height * side + head] : [place.x + place.width * side + head, place.y + place.height * part];
      });
      curves = points.slice(1).map(([x2, y2], i) => {
        const [x1, y1] = points[i];
        const [x, y] = [(x1 + x2) / 2, (y1 + y2) / 2];
        return narrow ? [x1, y1, x1, y, x2, y, x2, y2] : [x1, y1, x, y1, x, y2, x2, y2];
      });
    }
    const d = curves.map(([x1, y1, ...rest], i) => `${i ? "" : `M${x1} ${y1}`}C${rest.join(" ")}`).join("");
    paths.set(keyOf(edge), { d });
    bends.set(keyOf(edge), curves);
  }
  const labels = new Map();
  for (let turn = 0; turn < 3; turn += 1) { // after the first turn all know of all others
    for (const [key, curves] of bends) {
      labels.delete(key);
      labels.set(key, free(curves, [...labels.values()], narrow));
    }
  }
  for (const [key, label] of labels) Object.assign(paths.get(key), label);
  return { paths, labels: [...labels.values()], deepest };
}

// a place for the numbers of an edge, where no others are: on it, or else beside it
function free(curves, labels, narrow) {
  let best = null;
  for (const side of [0, -1, 1]) {
    const beside = narrow ? [side * BESIDE[0], 0] : [0, side * BESIDE[1]];
    for (const part of [0.5, 0.36, 0.64, 0.25, 0.75]) {
      for (const curve of curves) {
        const [x, y] = [0, 1].map((i) => bezier(curve[i], curve[i + 2], curve[i + 4], curve[i + 6], part) + beside[i]);
        const over = labels.reduce((sum, each) => sum + Math.max(0, LABEL[0] - Math.abs(each.x - x)) * Math.max(0, LABEL[1] - Math.abs(each.y - y)), 0);
        if (best === null || over < best.over) best = { x, y, over };
      }
    }
  }
  return { x: best.x, y: best.y };
}

const bezier = (a, b, c, d, t) => a * (1 - t) ** 3 + 3 * b * t * (1 - t) ** 2 + 3 * c * t * t * (1 - t) + d * t ** 3;

const keyOf = (edge) => `${edge.from}\n${edge.to}\n${edge.kind}`;

function draw(services, edges, { places, paths, left, top, width, height }, narrow) {
  const busiest = Math.max(1, ...edges.map((edge) => edge.rate));
  return h("svg", {
    class: "graph", viewBox: `${left - 6} ${top - 8} ${width + 12} ${height + 20}`, width: Math.round(width + 12), role: "group",
    "aria-label": "Who calls whom",
  },
  h("defs", null, ["plain", "bad"].map((kind) =>
    h("marker", { key: kind, id: `head-${kind}`, class: `head ${kind}`, viewBox: "0 0 8 8", refX: 4, refY: 4, markerWidth: 8, markerHeight: 8, markerUnits: "userSpaceOnUse", orient: "auto" },
      h("path", { d: "M0.5 0.5 7.5 4 0.5 7.5z" })))),
  edges.map((edge) => {
    const key = keyOf(edge);
    const quiet = !edge.rate;
    const weight = quiet ? 1.2 : 1.4 + 2.2 * Math.sqrt(edge.rate / busiest);
    const what = edge.kind === "event" ? "events" : "calls";
    return h("g", { key, class: edgeClass(edge) },
      h("title", null, `${edge.from} → ${edge.to}, ${what}: ${rate(edge.rate)} a second, 99 of 100 within ${took(edge.p99)}, ${rate(edge.error_rate)} errors a second${edge.methods.length ? `: ${edge.methods.slice(0, 8).join(", ")}` : ""}`),
      h("path", { d: paths.get(key).d, "stroke-width": weight.toFixed(2), "marker-end": `url(#head-${edge.error_rate > 0 ? "bad" : "plain"})` }));
  }),
  edges.filter((edge) => edge.rate).map((edge) => {
    const key = keyOf(edge);
    const { x, y } = paths.get(key);
    return h("g", { key: `numbers ${key}`, class: edgeClass(edge) },
      h("text", { x, y: y - 5, "text-anchor": "middle" }, `${rate(edge.rate)}/s · ${took(edge.p99)}`),
      edge.error_rate > 0 && h("text", { key: "errors", class: "errors", x, y: y + 13, "text-anchor": "middle" }, `${rate(edge.error_rate)} errors/s`));
  }),
  services.map((service) => {
    const place = places.get(service.name);
    const status = statusOf(service);
    const most = Math.floor((place.width - 34) / 8.2);
    const isLong = service.name.length > most;
    const name = isLong ? `${service.name.slice(0, most - 1)}…` : service.name;
    const under = service.up === 0 ? "gone" : service.count ? `${rate(service.rate)}/s · ${took(service.p99)}` : "no calls yet";
    return h("a", { key: service.name, href: `#/service/${encodeURIComponent(service.name)}`, class: `node ${status}`, "aria-label": `${service.name}: ${under}` },
      h("title", null, service.name),
      h("rect", { x: place.x, y: place.y, width: place.width, height: HEIGHT, rx: 9 }),
      h("circle", { cx: place.x + 17, cy: place.y + 21, r: 4.5 }),
      h("text", { class: "name", x: place.x + 29, y: place.y + 25.5, textLength: isLong ? place.width - 40 : null, lengthAdjust: "spacingAndGlyphs" }, name),
      h("text", { key: "under", class: "under", x: place.x + 29, y: place.y + 43 }, under));
  }));
}

const edgeClass = (edge) => `edge ${edge.kind}${edge.error_rate > 0 ? " bad" : ""}${edge.rate ? "" : " quiet"}`;

export function statusOf(service) {
  if (service.up === 0) return "gone";
  if (service.instances.length === 1 && service.instances[0].status === "late") return "late";
  if (service.error_rate > 0) return "bad";
  return service.gone || service.instances.some((each) => each.status === "late") ? "late" : "up";
}
