// Numbers and times as a person reads them.

const grouped = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

export const count = (value) => grouped.format(value);

export function plural(value, one, many = `${one}s`) {
  return `${count(value)} ${value === 1 ? one : many}`;
}

// calls a second
export function rate(value) {
  if (!value) return "0";
  if (value < 0.1) return "<0.1";
  return value < 9.95 ? value.toFixed(1) : count(value);
}

// how long something took
export function took(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  const ms = seconds * 1000;
  if (ms < 0.05) return "<0.1 ms";
  if (ms < 9.95) return `${ms.toFixed(1)} ms`;
  if (ms < 999.5) return `${Math.round(ms)} ms`;
  return seconds < 9.95 ? `${seconds.toFixed(1)} s` : `${count(seconds)} s`;
}

// how long ago, or for how long
export function span(seconds) {
  const s = Math.max(0, Math.round(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

export const clock = (at) => new Date(at * 1000).toLocaleTimeString("en-GB");

export const whole = (at) => new Date(at * 1000).toLocaleString("en-GB");

export function share(part, all) {
  if (!all) return "";
  const percent = (100 * part) / all;
  return percent && percent < 0.1 ? "<0.1 %" : `${percent < 9.95 ? percent.toFixed(1) : Math.round(percent)} %`;
}

// arguments to begin with, of a signature as Python writes it: those that have to be given
export function example(signature) {
  const values = {};
  for (const parameter of parameters(signature.replace(/\)\s*(->.*)?$/s, "").replace(/^\(/, ""))) {
    const [, name, kind] = /^(\w+)\s*(?::\s*(.*))?$/s.exec(parameter.trim()) || [];
    if (name) values[name] = { int: 1, float: 1.5, bool: true, list: [], dict: {} }[(kind || "").trim()] ?? name;
  }
  return JSON.stringify(values);
}

function parameters(text) {
  const found = [];
  let depth = 0;
  let current = "";
  for (const letter of text) {
    if ("([{".includes(letter)) depth += 1;
    if (")]}".includes(letter)) depth -= 1;
    if (letter === "," && depth === 0) {
      found.push(current);
      current = "";
    } else current += letter;
  }
  found.push(current);
  return found.filter((each) => !each.includes("=") && !/^\s*([*\/]|$)/.test(each));
}
