// The little Markdown that chat models write, as elements. Never as HTML text: a reply cannot bring markup of its own.
// Every pass is linear in the text, because a reply is drawn anew with each piece that arrives.

import { h } from "./preact.js";

const DEEPEST = 4;

/** The text as a list of block elements. */
export function renderMarkdown(text) {
  return blocks(text.replace(/\r\n?/g, "\n").split("\n"), 0);
}

const FENCE = /^ {0,3}(```+|~~~+)/;
const HEADING = /^ {0,3}(#{1,6}) +(.*?)[ #]*$/;
const BULLET = /^( *)[-*+•] +(.*)$/;
const NUMBER = /^( *)(\d{1,9})[.)] +(.*)$/;
const QUOTE = /^ {0,3}> ?/;
const RULE = /^ {0,3}([-*_])( *\1){2,} *$/;

function blocks(lines, depth) {
  const out = [];
  let at = 0;
  while (at < lines.length) {
    const line = lines[at];
    if (line.trim() === "") {
      at += 1;
      continue;
    }
    const [element, next] = block(lines, at, depth);
    out.push(element);
    at = next;
  }
  return out;
}

/** The block that begins at line `at`, and the line after it. */
function block(lines, at, depth) {
  const line = lines[at];
  const fence = FENCE.exec(line);
  if (fence) return codeBlock(lines, at, fence[1]);
  const heading = HEADING.exec(line);
  if (heading) return [h("p", { class: `heading level-${heading[1].length}` }, inline(heading[2])), at + 1];
  if (RULE.test(line)) return [h("hr"), at + 1];
  if (depth < DEEPEST) {
    if (QUOTE.test(line)) return quote(lines, at, depth);
    if (BULLET.test(line)) return list(lines, at, depth, BULLET, "ul");
    if (NUMBER.test(line)) return list(lines, at, depth, NUMBER, "ol");
  }
  return paragraph(lines, at);
}

function codeBlock(lines, at, mark) {
  let end = at + 1;
  while (end < lines.length && !lines[end].trimStart().startsWith(mark)) end += 1;
  const code = lines.slice(at + 1, end).join("\n");
  return [h("pre", { tabIndex: 0 }, h("code", null, code)), end + 1];
}

function quote(lines, at, depth) {
  let end = at;
  while (end < lines.length && QUOTE.test(lines[end])) end += 1;
  const inner = lines.slice(at, end).map((line) => line.replace(QUOTE, ""));
  return [h("blockquote", null, blocks(inner, depth + 1)), end];
}

function list(lines, at, depth, pattern, tag) {
  const indent = pattern.exec(lines[at])[1].length;
  const items = [];
  let end = at;
  for (; end < lines.length; end += 1) {
    const line = lines[end];
    const item = pattern.exec(line);
    const isDeeper = line.search(/\S/) > indent;
    if (item && item[1].length <= indent) items.push([item.at(-1)]);
    else if (line.trim() === "" ? continuesList(lines[end + 1], pattern, indent) : isDeeper) items.at(-1).push(line);
    else break;
  }
  const attributes = tag === "ol" ? { start: Number(pattern.exec(lines[at])[2]) } : null;
  return [h(tag, attributes, items.map((item) => h("li", null, listItem(item, depth)))), end];
}

function continuesList(next, pattern, indent) {
  return next !== undefined && next.trim() !== "" && (pattern.test(next) || next.search(/\S/) > indent);
}

function listItem([first, ...rest], depth) {
  const offset = Math.min(...rest.filter((line) => line.trim()).map((line) => line.search(/\S/)), 99);
  return [inline(first), blocks(rest.map((line) => line.slice(offset)), depth + 1)];
}

function paragraph(lines, at) {
  let end = at + 1;
  while (end < lines.length && isParagraphLine(lines[end])) end += 1;
  const children = [];
  for (const line of lines.slice(at, end)) {
    if (children.length) children.push(h("br"));
    children.push(inline(line.trim()));
  }
  return [h("p", null, children), end];
}

function isParagraphLine(line) {
  return line.trim() !== "" && ![FENCE, HEADING, BULLET, NUMBER, QUOTE, RULE].some((pattern) => pattern.test(line));
}

const MARKS = [["**", "strong"], ["__", "strong"], ["~~", "s"], ["*", "em"], ["_", "em"]];
const LINK = /\[([^\[\]\n]{1,300})\]\(\s*<?((?:https?:\/\/|mailto:)[^\s<>()]{1,2000})>?\s*\)/y;
const BARE_LINK = /https?:\/\/[^\s<>"'`*\[\]{}|\\^]{1,2000}/y;
const ESCAPE = /\\([\\`*_~#+.!()[\]{}>|-])/y;

function matchAt(pattern, text, at) {
  pattern.lastIndex = at;
  return pattern.exec(text);
}

function inline(text, depth = 0) {
  const out = [];
  const missing = new Map(); // mark -> it does not occur at or after this place
  let plain = "";
  let at = 0;

  const find = (mark, from) => {
    if (from >= (missing.get(mark) ?? Infinity)) return -1;
    const found = text.indexOf(mark, from);
    if (found < 0) missing.set(mark, from);
    return found;
  };
  const push = (element, next) => {
    if (plain) out.push(plain);
    plain = "";
    out.push(element);
    at = next;
  };

  while (at < text.length) {
    const special = markup(text, at, depth, find);
    if (special) push(...special);
    else plain += text[at++];
  }
  if (plain) out.push(plain);
  return out;
}

/** `[element or text, next place]` when something other than plain text begins at `at`. */
function markup(text, at, depth, find) {
  const sign = text[at];
  if (sign === "\\") {
    const escaped = matchAt(ESCAPE, text, at);
    return escaped && [escaped[1], at + 2];
  }
  if (sign === "`") return codeSpan(text, at, find);
  if (sign === "[") {
    const found = depth < DEEPEST && matchAt(LINK, text, at);
    return found ? [link(found[2], inline(found[1], DEEPEST)), at + found[0].length] : null;
  }
  if (sign === "h" && !/\w/.test(text[at - 1] ?? "")) return bareLink(text, at);
  if (depth >= DEEPEST) return null;
  for (const [mark, tag] of MARKS) {
    if (!text.startsWith(mark, at)) continue;
    const end = closing(text, at, mark, find);
    if (end > 0) return [h(tag, null, inline(text.slice(at + mark.length, end), depth + 1)), end + mark.length];
  }
  return null;
}

function codeSpan(text, at, find) {
  let width = 1;
  while (text[at + width] === "`") width += 1;
  const mark = "`".repeat(width);
  const end = find(mark, at + width);
  if (end < 0) return [mark, at + width];
  return [h("code", null, text.slice(at + width, end).trim()), end + width];
}

function bareLink(text, at) {
  const found = matchAt(BARE_LINK, text, at);
  if (!found) return null;
  const url = found[0].replace(/[.,;:!?)]+$/, "");
  return [link(url, url), at + url.length];
}

/** Where the emphasis that opens at `at` closes, or -1: it must hug its words, and an underscore must stand at their ends. */
function closing(text, at, mark, find) {
  const from = at + mark.length;
  if (!/\S/.test(text[from] ?? " ")) return -1;
  if (mark[0] === "_" && /\w/.test(text[at - 1] ?? "")) return -1;
  let end = find(mark, from + 1);
  // "*a **b** c*": a single star does not close at a double one.
  while (end > 0 && mark.length === 1 && text[end + 1] === mark && text[end + 2] !== mark) end = find(mark, end + 2);
  if (end < 0 || /\s/.test(text[end - 1])) return -1;
  if (mark[0] === "_" && /\w/.test(text[end + mark.length] ?? "")) return -1;
  return end;
}

function link(url, children) {
  return h("a", { href: url, target: "_blank", rel: "noopener noreferrer nofollow" }, children);
}
