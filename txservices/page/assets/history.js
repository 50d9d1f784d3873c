// The last minute of each number, as far as this page has seen it, and lines drawn of it.

import { h } from "./dom.js";

const KEPT = 60;

const kept = new Map();

export function remember(state) {
  const now = new Map([["", state.services]]);
  for (const service of state.services) now.set(service.name, [service]);
  for (const name of kept.keys()) if (!now.has(name)) kept.delete(name);
  for (const [name, services] of now) {
    const known = kept.get(name) || { rate: [], error_rate: [] };
    for (const [what, values] of Object.entries(known)) {
      values.push(services.reduce((sum, service) => sum + service[what], 0));
      if (values.length > KEPT) values.shift();
    }
    kept.set(name, known);
  }
}

export function line(name, what, width, height) {
  const values = (kept.get(name) || {})[what] || [];
  const most = Math.max(...values, 0.001);
  const step = width / (KEPT - 1);
  const from = width - (values.length - 1) * step;
  const points = values.map((value, i) => `${(from + i * step).toFixed(1)} ${(height - 1.5 - (value / most) * (height - 3)).toFixed(1)}`);
  const drawn = points.length > 1;
  return h("svg", { class: `line ${what}`, viewBox: `0 0 ${width} ${height}`, width, height, preserveAspectRatio: "none", "aria-hidden": "true" },
    drawn && h("path", { class: "area", d: `M${from.toFixed(1)} ${height}L${points.join("L")}L${width} ${height}z` }),
    drawn && h("path", { key: "line", class: "stroke", d: `M${points.join("L")}` }));
}
