// Descriptions of elements, and the document made the same as them. Data becomes text nodes and attributes, never HTML.
//
//     patch(main, [h("p", { class: "quiet" }, "hello"), rows.map((row) => h("li", { key: row.id }, row.name))])
//
// What is there already stays: the focus, what is typed, and what is selected.

const SVG = "http://www.w3.org/2000/svg";
const ONCE = new Set(["value", "open", "checked"]); // the user's own from then on

export function h(tag, props, ...children) {
  return { tag, props: props || {}, children: children.flat(Infinity).filter(isShown) };
}

function isShown(child) {
  return child !== null && child !== undefined && child !== false && child !== "";
}

export function patch(parent, children) {
  const old = new Map();
  for (const node of parent.childNodes) old.set(node.madeFor, node);
  let next = parent.firstChild;
  const seen = new Map();
  for (const child of children.flat(Infinity).filter(isShown)) {
    const kind = child.tag ? `${child.tag} ${child.props.key ?? ""}` : "text";
    const count = (seen.get(kind) || 0) + 1;
    seen.set(kind, count);
    const name = `${kind} ${count}`;
    let node = old.get(name);
    if (node) old.delete(name);
    else {
      node = make(child, parent);
      node.madeFor = name;
    }
    if (child.tag) update(node, child);
    else if (node.data !== String(child)) node.data = String(child);
    if (node === next) next = next.nextSibling;
    else parent.insertBefore(node, next);
  }
  for (const node of old.values()) node.remove();
}

function make(child, parent) {
  if (!child.tag) return document.createTextNode(String(child));
  const inSvg = child.tag === "svg" || (parent.namespaceURI === SVG && parent.localName !== "foreignObject");
  const node = inSvg ? document.createElementNS(SVG, child.tag) : document.createElement(child.tag);
  node.had = {};
  for (const [name, value] of Object.entries(child.props)) if (ONCE.has(name)) node[name] = value;
  return node;
}

function update(node, { props, children }) {
  const had = node.had;
  for (const name of Object.keys(had)) if (!(name in props)) set(node, name, null);
  for (const [name, value] of Object.entries(props)) {
    if (name !== "key" && !ONCE.has(name) && had[name] !== value) set(node, name, value);
  }
  node.had = props;
  patch(node, children);
}

function set(node, name, value) {
  if (name.startsWith("on")) node[name] = value;
  else if (name === "width%") node.style.width = value === null ? "" : `${value}%`;
  else if (value === null || value === undefined || value === false) node.removeAttribute(name);
  else node.setAttribute(name, value === true ? "" : String(value));
}
