"use strict";
// Every text of a run is written as text: nothing here makes markup of a string.
let run = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const every = 1000 * document.documentElement.dataset.everySeconds, live = every > 0;

/** An element with attributes, handlers (`onclick`) and children; strings become text, null is left out. */
function h(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(3).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

// -- numbers ------------------------------------------------------------------------------------------------------------------------------

const digits = (x) => (x === null || x === undefined ? "-" : x === 0 || Math.abs(x) >= 1000 ? Math.round(x).toLocaleString("en") : String(+x.toPrecision(3)).includes("e") ? x.toFixed(12).replace(/0+$/, "") : String(+x.toPrecision(3)));
const count = (x) => (x === null || x === undefined ? "-" : x.toLocaleString("en"));
const many = (x) => (x >= 1e9 ? `${digits(x / 1e9)} billion` : x >= 1e6 ? `${digits(x / 1e6)} million` : count(x));
const gap = "\u00a0"; // a number and its unit stay in one line
/** Energy in the one unit of this page, which the commands on it use, too. */
const energy = (joules) => (joules === null || joules === undefined ? "unknown" : `${digits(joules / run.unit.joules)}${gap}${run.unit.name}`);
const steps = [[1e9, "G"], [1e6, "M"], [1e3, "k"], [1, ""], [1e-3, "m"], [1e-6, "µ"], [1e-9, "n"]];
const prefixed = (x, unit) => { if (!x) return `0${gap}${unit}`; const [size, prefix] = steps.find(([s]) => Math.abs(x) >= s * 0.1) ?? steps.at(-1); return `${digits(x / size)}${gap}${prefix}${unit}`; };
const mass = (grams) => (grams === null || grams === undefined ? "unknown" : grams >= 1e6 ? `${digits(grams / 1e6)} tCO₂e` : prefixed(grams, "gCO₂e"));
const fixed = (x, n) => x.toFixed(n);
const quality = (q) => (q === null || q === undefined ? "unknown" : run.percent ? `${fixed(100 * q, run.decimals)}${gap}%` : fixed(q, run.decimals));
const step = (d) => (run.percent ? `${fixed(100 * Math.abs(d), run.decimals)} points` : fixed(Math.abs(d), run.decimals));
const percent = (share) => `${share < 0.1 ? (100 * share).toFixed(share < 0.01 ? 2 : 1) : Math.round(100 * share)}${gap}%`;
const value = (v) => (typeof v === "number" && !Number.isInteger(v) ? String(+v.toPrecision(3)) : String(v));
const clock = (s) => (s >= 5400 ? `${(s / 3600).toFixed(1)} hours` : s >= 90 ? `${(s / 60).toFixed(1)} minutes` : `${digits(s)} seconds`);
/** The examples that quality rests on, and that they are of several folds where they are. */
const validated = () => `${plural(run.examples, "validation example")}${run.folds ? ` of ${run.folds} folds` : ""}`;
const plural = (n, word) => `${count(n)} ${word}${n === 1 ? "" : "s"}`;

// -- the model of the choice --------------------------------------------------------------------------------------------------------------

const state = { uses: 0, quality: null, energy: Infinity, pick: null, rule: "sensible", place: null, form: 0, shown: 0, filter: "" };
const better = (a, b) => (run.maximise ? a > b : a < b);
const member = (n) => run.members.find((m) => m.n === n);
/** What else than its quality the front compares, with words for it; all of it stands in the table at any width. */
const aims = { train_energy: "energy of a training", train_co2: "carbon of a training", inference_energy: "energy of a prediction", parameters: "number of parameters" };
const further = () => Object.keys(run.members[0]?.values ?? {}).filter((name) => !(name in aims));
/** The classes of a column, none of which hides it where it is an objective. */
const unless = (name, kind) => (name in (run.members[0]?.values ?? {}) ? null : kind);
const usable = () => run.members.length > 0 && run.members.every((m) => m.j1000 > 0); // no prediction is free: 0 J is below the resolution of the meter
const lifetime = (m) => m.j + (state.uses && m.j1000 !== null ? (state.uses * m.j1000) / 1000 : 0);
const cheapest = (models) => d3.least(models, lifetime);
const reaches = (m) => state.quality === null || !better(state.quality, m.q);
const within = (m) => lifetime(m) <= state.energy * (1 + 1e-9);
const allowed = (m) => reaches(m) && within(m);
const rules = {
  sensible: [() => (state.uses ? cheapest(run.members.filter((m) => run.choice.ties.includes(m.n))) : member(run.choice.sensible)), () => `Sensible is ${run.choice.why}${state.uses ? "; with predictions, the one of those that is cheapest over its life" : ""}.`],
  best: [() => member(run.choice.best), () => `Best is the one with the ${run.maximise ? "highest" : "lowest"} validation ${run.metric}.`],
  knee: [() => member(run.choice.knee), () => "After the knee each further step of quality costs disproportionately more energy."],
  cheapest: [() => (state.uses ? cheapest(beating()) : member(run.choice.cheapest)), () => (run.guessing === null ? "Cheapest is the one with the lowest energy of all; what guessing would give is unknown." : `Cheapest is the one with the lowest energy of those that are better than guessing (${quality(run.guessing)}).`)],
};
const beating = () => { const good = run.members.filter((m) => m.beats_guessing); return good.length ? good : run.members; };
/** The share by which the energy of another training of this model would differ (one standard deviation). */
const spread = (m) => (m.again?.j?.[1] ? m.again.j[1] / m.again.j[0] : Math.max(run.typical, m.u === null ? 0 : m.u / m.j));
const measuredSpread = (m) => Boolean(m.again?.j?.[1]);
function tiesOf(m) {
  if (run.choice.pairs.length) return run.choice.pairs.filter((pair) => pair.includes(m.n)).map(([a, b]) => member(a === m.n ? b : a));
  const tied = run.choice.ties.filter((n) => n !== m.n).map(member).filter(Boolean); // only with the best: two of them may well differ
  return m.n === run.choice.best ? tied : run.choice.ties.includes(m.n) ? [member(run.choice.best)] : [];
}

function apply() {
  if (!run.members.length) return;
  if (state.rule) state.pick = rules[state.rule][0]();
  else if (state.rule === null && (state.quality !== null || state.energy < Infinity)) {
    const fit = run.members.filter(allowed);
    state.pick = (state.quality !== null ? cheapest(fit) : fit.reduce((a, b) => (a === null || better(b.q, a.q) ? b : a), null)) ?? state.pick;
  }
  state.pick = member(state.pick?.n) ?? rules.sensible[0]();
}
function choose(m, rule = undefined) {
  Object.assign(state, { pick: m, rule });
  history.replaceState(null, "", `#trial=${m.n}`);
  draw();
}

// -- the chart ----------------------------------------------------------------------------------------------------------------------------

const stretch = (q) => (run.stretched ? -Math.log10((run.metric === "error" ? Math.max(q, 0) : Math.max(1 - q, 0)) + 0.005) : q);
const unstretch = (y) => (run.stretched ? (run.metric === "error" ? 10 ** -y - 0.005 : 1.005 - 10 ** -y) : y);
/** The colour of a variable as it is now, for a canvas, which knows no variables. */
function colour(name) {
  const probe = h("i", { style: `color:var(${name})`, hidden: true });
  document.body.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}
/** Ticks at 1, 2 and 5; only the tens where there is no room. */
function ticks(low, high, width) {
  const wanted = width / Math.max(0.3, Math.log10(high / low)) < 150 ? [1] : [1, 2, 5];
  const found = d3.range(Math.floor(Math.log10(low)), Math.ceil(Math.log10(high)) + 1).flatMap((e) => wanted.map((s) => s * 10 ** e)).filter((t) => t >= low && t <= high);
  return found.length >= 2 ? found : d3.ticks(low, high, 4);
}
/** The unit of lifetimes with predictions, which outgrow that of trainings. */
function axisUnit() {
  if (!state.uses) return [run.unit.name, run.unit.joules];
  const wh = d3.max(run.members, lifetime) / 3600, [size, prefix] = steps.find(([s]) => wh >= s * 0.1) ?? steps.at(-1);
  return [`${prefix}Wh`, size * 3600];
}

function chart() {
  const box = $("chart"), width = box.clientWidth;
  if (!width || !run.members.length) return;
  const [unit, size] = axisUnit(), x = (m) => lifetime(m) / size, y = (m) => stretch(m.q), pick = state.pick;
  const others = state.uses ? [] : run.others, front = d3.sort(run.members, lifetime), line = [];
  for (const m of front) if (!line.length || better(m.q, line.at(-1).q)) line.push(m);
  const reach = (m) => (m.j / size) * 2 * spread(m), ends = [...front.flatMap((m) => [Math.max(x(m) / 3, x(m) - reach(m)), x(m), Math.min(3 * x(m), x(m) + reach(m))]), ...others.map((o) => o[2] / size)], room = Math.sqrt(Math.max(1.4, (3 * d3.min(ends)) / d3.max(ends))), low = d3.min(ends) / room, high = d3.max(ends) * room;
  const whisker = pick.low === null ? [] : [pick], side = spread(pick), [bottom, top] = run.range;
  const inside = (v) => Math.min(top, Math.max(bottom, v)), labelled = new Map();
  for (const [word, n] of [["sensible", rules.sensible[0]().n], ["best", run.choice.best], ["default", run.default?.n]]) {
    if (n !== undefined && member(n)) labelled.set(n, [...(labelled.get(n) ?? []), word]);
  }
  const labels = [], near = (a, b) => Math.abs(Math.log(x(a) / x(b))) < 0.03 * Math.log(high / low) && Math.abs(y(a) - y(b)) < 0.02 * (top - bottom);
  for (const [n, words] of width < 520 ? [] : labelled) {
    const m = member(n), beside = labels.find((one) => near(one.m, m));  // two labels in one place are one
    if (beside) beside.text += `, ${words.join(", ")}`; else labels.push({ m, text: words.join(", ") });
  }
  const left = (m) => Math.log(x(m) / low) / Math.log(high / low) > 0.25;
  const svg = Plot.plot({
    width, height: Math.min(500, Math.max(340, width * 0.68)), marginLeft: 56, marginTop: 30, marginBottom: 44, marginRight: 18,
    style: { background: "transparent", color: "var(--ink)" },
    x: { type: "log", domain: [low, high] }, y: { domain: run.stretched || run.maximise ? [bottom, top] : [top, bottom], axis: null },
    marks: [
      Plot.gridX(ticks(low, high, width), { stroke: "var(--ink)" }), Plot.gridY(run.ticks.length ? run.ticks : d3.ticks(bottom, top, 6), { stroke: "var(--ink)" }),
      Plot.axisX(ticks(low, high, width), { text: digits, label: `${state.uses ? `training and ${many(state.uses)} predictions` : "training energy"} (${unit}) →` }),
      Plot.axisY(run.ticks.length ? run.ticks : d3.ticks(bottom, top, 6), { text: (t) => (run.percent ? `${+(100 * unstretch(t)).toFixed(2)} %` : value(unstretch(t))), label: `${run.maximise || run.stretched ? "↑" : "↓"} validation ${run.metric}${run.stretched && width > 520 ? " (equal steps: equal ratios of the error)" : ""}`, labelAnchor: "top" }),
      run.guessing !== null && stretch(run.guessing) >= bottom && stretch(run.guessing) <= top ? [Plot.ruleY([stretch(run.guessing)], { stroke: "var(--muted)", strokeDasharray: "4 4" }), Plot.text([0], { frameAnchor: "right", y: stretch(run.guessing), text: () => "guessing", dy: -7, fill: "var(--muted)" })] : null,
      Plot.line(line, { x, y, curve: "step-after", stroke: "var(--front)", strokeWidth: 2 }),
      Plot.ruleX(whisker, { x, y1: (m) => inside(stretch(m.low)), y2: (m) => inside(stretch(m.high)), stroke: "var(--pick)", strokeWidth: 1.5 }),
      Plot.ruleY([pick], { y, x1: (m) => Math.max(low, x(m) - (m.j / size) * Math.min(0.95, 2 * side)), x2: (m) => Math.min(high, x(m) + (m.j / size) * 2 * side), stroke: "var(--pick)", strokeWidth: 1.5 }),
      run.default && !run.default.on_front && !state.uses ? [Plot.dot([run.default], { x: (m) => m.j / size, y: (m) => inside(stretch(m.q)), r: 6, symbol: "diamond", stroke: "var(--other)", strokeWidth: 2, fill: "var(--card)" }), Plot.text([run.default], { x: (m) => m.j / size, y: (m) => inside(stretch(m.q)), text: () => "default", dy: 14, fill: "var(--other)" })] : null,
      Plot.dot(front, { x, y, r: front.length > 60 ? 3.5 : 5, fill: (m) => (allowed(m) ? "var(--front)" : "var(--card)"), stroke: "var(--front)", strokeWidth: 1.5 }),
      Plot.dot(state.uses ? [] : front.filter((m) => m.again?.j && m.again.q), { x: (m) => m.again.j[0] / size, y: (m) => inside(stretch(m.again.q[0])), symbol: "times", r: 4, stroke: "var(--other)", strokeWidth: 2 }),
      Plot.dot([pick], { x, y, r: 9, stroke: "var(--pick)", strokeWidth: 3 }),
      Plot.text(labels.filter(({ m }) => left(m)), { x: ({ m }) => x(m), y: ({ m }) => y(m), text: "text", textAnchor: "end", dx: -12, dy: -9, fontWeight: 600, fill: "var(--ink)", stroke: "var(--card)", strokeWidth: 4 }),
      Plot.text(labels.filter(({ m }) => !left(m)), { x: ({ m }) => x(m), y: ({ m }) => y(m), text: "text", textAnchor: "start", dx: 12, dy: 13, fontWeight: 600, fill: "var(--ink)", stroke: "var(--card)", strokeWidth: 4 }),
      Plot.tip(front, Plot.pointer({ x, y, maxRadius: 30, fill: "var(--card)", stroke: "var(--edge)", title: (m) => `trial ${m.n}: ${quality(m.q)}\n${digits(x(m))} ${unit}${run.choice.marks[m.n] ? `\n${run.choice.marks[m.n]}` : ""}` })),
    ],
  });
  svg.addEventListener("click", () => { if (svg.value) choose(svg.value); });
  svg.setAttribute("aria-hidden", "true");
  const drawn = dots(svg, others, size, width);
  box.replaceChildren(drawn, svg);
  const says = pick ? ` Chosen: trial ${pick.n}, ${quality(pick.q)} for ${energy(pick.j)}.` : "";
  box.setAttribute("aria-label", `Scatter plot of ${run.metric} against energy: ${plural(front.length, "model")} on the front, ${range(front[0], member(run.choice.best))}.${says} The table below lists them.`);
}
/** Dominated trials on a canvas: 10,000 of them are one element. Those below the axis lie on its edge. */
function dots(svg, others, size, width) {
  const scale = window.devicePixelRatio || 1, height = +svg.getAttribute("height"), sx = svg.scale("x"), sy = svg.scale("y"), [bottom, top] = run.range;
  const canvas = h("canvas", { width: width * scale, height: height * scale, style: `width:${width}px;height:${height}px`, "aria-hidden": "true" }), context = canvas.getContext("2d");
  context.scale(scale, scale);
  context.globalAlpha = others.length > 2000 ? 0.35 : others.length > 300 ? 0.6 : 0.9;
  context.fillStyle = colour("--dots");
  canvas.dataset.dots = others.length;
  for (const [, q, j] of others) {
    const y = stretch(q), out = y < bottom || y > top;
    context.beginPath();
    context.arc(sx.apply(j / size), sy.apply(Math.min(top, Math.max(bottom, y))), out ? 1.5 : 2.5, 0, 7);
    context.fill();
  }
  return canvas;
}

// -- the chosen model ---------------------------------------------------------------------------------------------------------------------

function command(text) {
  const button = h("button", { type: "button", "aria-label": `copy: ${text}` }, "copy");
  button.onclick = () => copy(text, button);
  // A line breaks between words, not behind a hyphen of one, unless a word is too long for any line.
  const words = text.split(" ").map((word, i) => [i ? " " : "", word.length < 30 ? h("span", { class: "whole" }, word) : word]);
  return h("div", { class: "command" }, h("code", null, words), button);
}
function copy(text, button) {
  const done = (word) => { button.textContent = word; setTimeout(() => (button.textContent = "copy"), 1500); };
  if (navigator.clipboard && window.isSecureContext) return navigator.clipboard.writeText(text).then(() => done("copied"), () => done("select it"));
  const area = h("textarea", { style: "position:fixed;opacity:0" }); // a page from a file is no secure context in every browser
  area.value = text; document.body.append(area); area.select();
  done(document.execCommand("copy") ? "copied" : "select it"); area.remove(); button.focus();
}
const list = (entries) => h("dl", { class: "facts" }, entries.filter(([, v]) => v !== null).map(([k, v]) => [h("dt", null, k), h("dd", null, v)]));
/** The place that the page is priced for: that of the run until another one is chosen; null when unknown. */
const here = () => (state.place === null ? null : run.places.find((p) => p.zone === state.place)) ?? (run.place ? run.places[0] : null);
const forecast = (p) => Boolean(run.place && p === run.places[0] && run.place.source?.startsWith("forecast"));
const called = (p) => [p.region ?? p.zone ?? (forecast(p) ? null : "given by the user"), forecast(p) ? "by the forecast" : null].filter(Boolean).join(", ");
const grams = (joules, p = here()) => (p === null || joules === null ? null : (joules / 3.6e6) * p.grams_per_kwh * run.pue);
/** Grams of a training: where it took place its own, which follow its hours under a forecast. */
const emitted = (m, p = here()) => (run.place && p === run.places[0] && (forecast(p) || m.g !== null) ? m.g : grams(m.j, p));
const money = (joules) => (run.money && joules !== null ? `${digits((joules / 3.6e6) * run.money[0] * run.pue)}${gap}${run.money[1]}` : null);

function details() {
  const m = state.pick, top = member(run.choice.best), ties = tiesOf(m), saved = 1 - lifetime(m) / lifetime(top), side = spread(m);
  const about = m.low === null ? "its interval is unknown: how many examples it was validated on was not kept" : `95 % interval ${quality(m.low)} to ${quality(m.high)}${m.right === null ? "" : `, ${count(m.right)} of ${validated()} right`}`;
  const how = measuredSpread(m) ? `±${gap}${percent(2 * side)} between ${m.again.n} trainings (2 sd)` : `±${gap}${percent(2 * side)}, as repeats of the digits study spread (2 sd)`;
  const cost = [emitted(m) === null ? null : mass(emitted(m)), money(m.j)].filter(Boolean).join(", ");
  const below = m === top ? "The best of all." : `${step(top.q - m.q)} ${better(top.q, m.q) ? "worse than" : "from"} the best (trial ${top.n}), ${saved >= 0 ? `${percent(saved)} less` : `${percent(-saved)} more`} energy${state.uses ? " over its life" : ""}.`;
  const box = [h("h2", { id: "h-pick" }, `Trial ${m.n}`, run.choice.marks[m.n] ? [" ", h("span", { class: "tag" }, run.choice.marks[m.n])] : null),
    h("div", { class: "big" },
      h("div", null, h("b", null, quality(m.q)), h("span", null, `validation ${run.metric}; ${about}`)),
      h("div", null, h("b", null, energy(m.j)), h("span", null, `to train once, ${m.how}${cost ? `; ${cost}` : ""}; ${how}`))),
    state.uses ? h("p", null, `With ${many(state.uses)} predictions: ${digits(lifetime(m) / axisUnit()[1])} ${axisUnit()[0]}.`) : null,
    h("p", null, below, m.beats_guessing === false ? " It is not better than guessing." : "", m.contended ? " It was trained while other programs used the machine." : "")];
  if (ties.length) {
    box.push(h("p", null, `${run.choice.pairs.length ? "On these examples it" : "It"} cannot be told from ${plural(ties.length, "other")}: `, ties.slice(0, 8).map((o) => [h("button", { type: "button", class: "tie", "aria-label": `choose trial ${o.n}`, onclick: () => choose(o) }, String(o.n)), " "]), ties.length > 8 ? "…" : null));
  } else if (m !== top) box.push(h("p", null, `It can be told from the best${run.choice.basis === "unknown" ? " as far as is known: what it gave for single examples was not kept" : ""}.`));
  if (run.default && run.default.n !== m.n) box.push(h("p", { class: "small" }, overDefault(m)));
  box.push(...again(m, top), h("h3", null, "Use it"), command(`joulefront export ${run.folder} --pick trial=${m.n} --to onnx -o model${run.source}`), command("joulefront predict model FILE"));
  const own = Object.entries(m.params).filter(([k]) => !(k in run.fixed));
  box.push(h("h3", null, "What it is"), list([
    ["parameters", m.parameters === null ? null : count(m.parameters)], ["operations", m.flops === null ? null : `${prefixed(m.flops, "FLOP")} a prediction`],
    ["epochs", m.epoch_is ? `${count(m.epochs)}, each ${m.epoch_is}` : count(m.epochs)], ["trained for", m.seconds === null ? null : clock(m.seconds)],
    ["1,000 predictions", m.j1000 === null ? "not measured (objective inference_energy measures it)" : `${digits(m.j1000)} J`],
    ...further().map((k) => [k, digits(m.values[k])]),
    ...m.parts.map(([k, j, kind, by]) => [`energy of ${k}`, `${energy(j)}, ${kind}${by ? ` by ${by}` : ""}`]), ...own.map(([k, v]) => [k, value(v)])]));
  $("details").replaceChildren(...box.filter(Boolean), ...curves(m));
}
function overDefault(m) {
  const d = run.default, own = member(d.n), life = state.uses && own, ratio = life ? lifetime(m) / lifetime(own) : m.j / d.j, less = Math.abs(ratio - 1) < 0.005 || (!life && d.alike?.includes(m.n)) ? "the same energy" : ratio < 1 ? `${percent(1 - ratio)} less energy` : ratio < 2 ? `${percent(ratio - 1)} more energy` : `${digits(ratio)} times the energy`;
  const tied = d.ties.includes(m.n) ? "cannot be told from it" : `${step(m.q - d.q)} ${better(m.q, d.q) ? "better" : "worse"}${d.compared.includes(m.n) ? "" : " as measured"}`;
  return `Against the default model (trial ${d.n}, ${quality(d.q)} for ${energy(d.j)}): ${tied}, for ${less}${life ? " over its life" : state.uses ? " to train" : ""}.`;
}
function again(m, top) {
  if (m.again) {
    const a = m.again, pm = (s, show) => `${show(s[0])}${s[1] === null ? "" : ` ± ${show(s[1])}`}`;
    const said = [`${pm(a.q, quality)} on the validation split`, a.test ? `${pm(a.test, quality)} on the untouched test split` : null, a.j ? pm(a.j, energy) : null].filter(Boolean);
    return [h("p", { class: "small" }, `Trained ${a.n} more time${a.n === 1 ? "" : "s"} (mean ± sd): ${said.join(", ")}.`)];
  }
  const both = m === top ? [m] : [m, top];
  return [h("p", { class: "small" }, `Measured once, and a search picks lucky measurements. Train ${both.length > 1 ? "it and the best" : "it"} again before you rely on it, for about ${energy(5 * d3.sum(both, (o) => o.j))}:`),
    command(`joulefront repeat ${run.folder} --pick ${both.map((o) => `trial=${o.n}`).join(",")} --times 5${run.source}`)];
}
function curves(m) {
  const found = [];
  for (const [key, label, show] of [["loss", "training loss", value], ["q", run.metric, (q) => (run.percent ? `${Math.round(100 * q)} %` : value(q))]]) {
    const known = m.curve.filter((p) => p[key] !== null && p.epoch !== null);
    if (known.length < 2) continue;
    const name = `${label} after each epoch: from ${show(known[0][key])} to ${show(known.at(-1)[key])}`;
    const svg = Plot.plot({ width: 320, height: 130, marginLeft: 48, marginBottom: 34, style: { background: "transparent", color: "var(--ink)" }, x: { label: "epoch →", ticks: d3.ticks(known[0].epoch, known.at(-1).epoch, Math.min(known.length, 5)).filter(Number.isInteger), tickFormat: "d" }, y: { label: `↑ ${label}`, ticks: 3, tickFormat: show }, marks: [Plot.line(known, { x: "epoch", y: key, stroke: "var(--front)", marker: known.length < 40 ? "dot" : null })] });
    svg.setAttribute("aria-hidden", "true");
    found.push(h("div", { class: "plot", role: "img", "aria-label": name }, svg));
  }
  return found.length ? [h("h3", null, "How it learned"), ...found] : [];
}

// -- tables -------------------------------------------------------------------------------------------------------------------------------

const cell = (text, kind) => h("td", kind ? { class: kind } : null, text);
const head = (names) => h("thead", null, h("tr", null, names.map(([text, kind]) => h("th", { class: kind, scope: "col" }, text))));
/** What sets a model apart from the chosen one: long lists of equal parameters would hide it. */
function differs(m) {
  if (m === state.pick) return "chosen";
  const [mine, its] = [m.params, state.pick.params], names = [...new Set([...Object.keys(mine), ...Object.keys(its)])].filter((k) => mine[k] !== its[k]);
  const short = (k) => k.split(".").at(-1), kin = mine.family === its.family;
  const shown = kin ? names : names.filter((k) => k === "family" || (k in mine && /width|depth|size|layers/.test(k)));
  return shown.filter((k) => k in mine).map((k) => `${short(k)} ${value(mine[k])}`).join(", ") || (m.epochs !== state.pick.epochs ? "epochs alone" : "nothing that is a parameter");
}
function membersTable() {
  const priced = run.members.some((m) => emitted(m) !== null), measured = usable(), repeated = run.members.some(measuredSpread);
  const carbon = unless("train_co2", "broad"), use = unless("inference_energy", "wide"), size = unless("parameters", "wide known");
  const names = [["trial", "text"], [run.metric, null], ["95 % interval", "wide"], ...further().map((name) => [name, null]), [run.unit.name, null], ...(repeated ? [["± (2 sd)", "wide"]] : []), ...(priced ? [["CO₂e", carbon]] : []), ...(measured ? [["J per 1,000", use]] : []), ["epochs", "wide known"], ["parameters", size], [`differs from trial ${state.pick.n} in`, "text"]];
  const row = (m) => h("tr", { class: `${m === state.pick ? "on" : ""} ${allowed(m) ? "" : "out"}`, onclick: (e) => { if (e.target.tagName !== "INPUT") choose(m); } },
    h("td", { class: "text first" }, h("label", null, h("input", { type: "radio", name: "pick", value: m.n, checked: m === state.pick, onchange: () => choose(m) }), ` ${m.n}`, allowed(m) ? null : [" ", h("span", { class: "tag" }, "outside")])),
    cell(quality(m.q)), cell(m.low === null ? "-" : `${quality(m.low).replace(`${gap}%`, "")} to ${quality(m.high)}`, "wide"), further().map((name) => cell(digits(m.values[name]))), cell(digits(m.j / run.unit.joules)), repeated ? cell(measuredSpread(m) ? percent(2 * spread(m)) : "-", "wide") : null,
    priced ? cell(mass(emitted(m)).replace("CO₂e", ""), carbon) : null, measured ? cell(digits(m.j1000), use) : null, cell(count(m.epochs), "wide known"), cell(count(m.parameters), size),
    h("td", { class: "text long" }, differs(m), run.choice.marks[m.n] ? [" ", h("span", { class: "tag" }, run.choice.marks[m.n])] : null));
  $("members").replaceChildren(h("caption", null, `Cheapest training first.${repeated ? "" : ` Energies of one model trained again spread by ±${gap}${percent(2 * run.typical)} (2 sd; the median of eight models of the digits study).`}`), head(names), h("tbody", null, run.members.map(row)));
}
/** All trials, a page of them at a time and only when they are asked for. */
function allTrials() {
  const data = run.all, names = Object.keys(data.params), of = (name, i) => { const c = data.params[name]; return c.values ? c.values[i] : c.of[c.at[i]]; };
  const words = (i) => names.map((name) => [name, of(name, i)]).filter(([, v]) => v !== null).map(([name, v]) => `${name.split(".").at(-1)} ${value(v)}`).join(", ");
  const text = (i) => [data.texts[data.rows[i][0]], data.rows[i][7] === null ? "" : data.texts[data.rows[i][7]], words(i)].join(" ").toLowerCase();
  const wanted = d3.range(data.rows.length).filter((i) => !state.filter || text(i).includes(state.filter) || String(data.rows[i][8]) === state.filter), shown = wanted.slice(0, state.shown);
  const rows = shown.map((i) => {
    const [kind, epochs, q, j, paid, how, parent, reason, number] = data.rows[i];
    return h("tr", null, cell(String(number), "text"), cell(data.texts[kind], "text"), cell(count(epochs)), cell(quality(q)), cell(j === null ? "unknown" : digits(j / run.unit.joules)), cell(paid === null ? "unknown" : digits(paid / run.unit.joules), "wide"), cell(data.texts[how], "text wide"), cell(parent === null ? "" : String(parent), "wide"), cell([words(i), reason === null ? "" : data.texts[reason]].filter(Boolean).join("; "), "text long"));
  });
  const more = shown.length < wanted.length ? h("button", { type: "button", onclick: () => { state.shown += 500; allTrials(); } }, `${Math.min(500, wanted.length - shown.length)} more`) : null;
  $("all").replaceChildren(h("p", { class: "small muted", role: "status" }, `${count(shown.length)} of ${count(wanted.length)} shown. Train: this model from scratch; paid: what this trial added to the bill.`),
    h("div", { class: "scroll" }, h("table", null, head([["trial", "text"], ["state", "text"], ["epochs", null], [run.metric, null], [`train ${run.unit.name}`, null], [`paid ${run.unit.name}`, "wide"], ["energy is", "text wide"], ["continues", "wide"], ["model", "text"]]), h("tbody", null, rows))), more ?? "");
}
const table = ({ head: names, rows, right }) => h("div", { class: "scroll" }, h("table", null, head(names.map((name, i) => [name, right.includes(i) ? null : "text"])), h("tbody", null, rows.map((row) => h("tr", null, row.map((text, i) => cell(text, right.includes(i) ? null : text.length > 40 ? "text long" : "text")))))));

// -- the bill, carbon, what mattered, how it was measured ---------------------------------------------------------------------------------

const bar = (name, share, text) => h("div", { class: "bar" }, h("span", null, name), h("i", { style: `width:${Math.min(100, Math.max(0, 100 * share))}%` }), h("b", null, text));
const WORDS = { front: "trials whose models are on the front, all that they took", complete: "the other complete trials", overhead: "starting up, deciding, storing", idle: "idle", failed: "failed trials", repeats: "training finalists again", stopped: "the other stopped trials", pruned: "trials stopped because others dominate them", features: "features of pretrained networks", unattributed: "work of other programs" };
function bill() {
  const b = run.bill, m = state.pick;
  if (b.total === null) return $("bill").replaceChildren(h("p", null, "Unknown: nothing could be measured or estimated."));
  const rows = [...Object.entries(b.uses).map(([k, j]) => [WORDS[k] ?? k, j]), ["not attributed", b.total - d3.sum(Object.values(b.uses))]].filter(([, j]) => j > 0.001 * b.total);
  const parts = [h("b", null, energy(b.total)), b.u === null ? "" : ` ±${gap}${percent(b.u / b.total)} (standard uncertainty)`, ` in ${clock(b.seconds)} for ${plural(run.trials, "training")}`, run.failed ? `, ${count(run.failed)} of them failed` : "", grams(b.total) === null ? "" : `; ${mass(grams(b.total))}`, money(b.total) ? `; ${money(b.total)}` : "", `. A 10 W lamp burns as much in ${clock(b.total / 10)}.`];
  const wall = b.wall ? h("p", { class: "small" }, `At the wall the whole machine took ${energy(b.wall.joules)} (${b.wall.how} by ${b.wall.by}); that contains the sums above.`) : null;
  $("bill").replaceChildren(h("p", null, parts), ...rows.map(([name, j]) => bar(name, j / b.total, `${energy(j)} (${percent(j / b.total)})`)), b.validation > 0 ? h("p", { class: "small muted" }, `Validating the models is ${energy(b.validation)} of what the trials took.`) : "", b.gaps ? h("p", { class: "small warn" }, b.gaps) : "", run.so_far ? h("p", { class: "small muted" }, `So far: ${live ? "the study is not over" : "what making this page took is not in it, and nor is what predicts quality and energy"}; joulefront report ${run.folder} has it.`) : "", wall ?? "", m ? h("p", { id: "payback" }, payback(m)) : "");
}
function payback(m) {
  const top = member(run.choice.best), total = run.bill.total;
  if (run.members.length === 1) return "The front has one model: there is no cheaper one with which the search could pay for itself.";
  if (m === top && m === run.members[0]) return "The best model is the cheapest one, too: nothing cheaper pays for the search.";
  if (m === top) return "Choose a cheaper model to see when the search has paid for itself.";
  const each = top.j - m.j, use = top.j1000 > 0 && m.j1000 > 0 ? (top.j1000 - m.j1000) / 1000 : 0;
  if (each <= 0) return `Trial ${m.n} costs no less to train than the best model (trial ${top.n}): choose a cheaper one to see when the search has paid for itself.`;
  return `Against training the best model (trial ${top.n}) each time, trial ${m.n} has paid for the search after ${plural(Math.ceil(total / each), "training")}${use > 0 ? `, or after ${many(Math.ceil(total / use))} predictions` : ""}.`;
}
/** The hours in which a run with a forecast trained, and what the same would have emitted in the cleanest of them. */
function byHour() {
  if (!run.hours.length) return null;
  const cleanest = d3.least(run.hours, (one) => one[2]), spent = d3.sum(run.hours, (one) => one[1]), grams = (j, perKwh) => (j / 3.6e6) * perKwh * run.pue;
  const emitted = d3.sum(run.hours, ([, j, perKwh]) => grams(j, perKwh)), name = (hour) => hour.slice(0, 16).replace("T", " ");
  return h("details", { open: true }, h("summary", null, "Hour by hour"),
    h("p", { class: "small" }, `The trainings emitted ${mass(emitted)}; all of them in the cleanest of these hours (${name(cleanest[0])} UTC) would have emitted ${mass(grams(spent, cleanest[2]))}.`),
    table({ head: ["hour (UTC)", "g/kWh", `trained (${run.unit.name})`, "emitted", state.pick ? `training trial ${state.pick.n} then` : ""], rows: run.hours.map(([hour, j, perKwh]) => [name(hour), digits(perKwh), digits(j / run.unit.joules), mass(grams(j, perKwh)), state.pick ? mass(grams(state.pick.j, perKwh)) : ""]), right: [1, 2, 3, 4] }));
}
function carbon() {
  const open = new Set([...document.querySelectorAll("#carbon details[open]")].map((d) => d.dataset.title));
  const at = here();
  const chosen = h("select", { id: "place", onchange: (e) => { state.place = run.places[+e.target.value]?.zone ?? null; draw(); $("place").focus(); } }, run.places.map((p, i) => h("option", { value: i, selected: p === at }, `${i === 0 && run.place ? "here: " : ""}${called(p)} (${digits(p.grams_per_kwh)} g/kWh)`)), run.place ? null : h("option", { value: -1, selected: at === null }, "unknown"));
  const rows = run.places.map((p) => [called(p), digits(p.grams_per_kwh), mass(grams(run.bill.total, p)), state.pick ? mass(emitted(state.pick, p)) : "-", p.year === null ? "" : String(p.year)]);
  $("carbon").replaceChildren(h("p", { class: "noprint" }, h("label", { for: "place" }, "Price this page for "), chosen),
    h("p", { class: "small muted" }, at ? `${at.describe}. ` : "Where this was computed is not known, so its carbon is not stated. ", run.pue === 1 ? "The machine alone, without the building (PUE 1)." : `The building is in it: PUE ${run.pue}.`, " The joules stay: another place is another factor, not another training."),
    byHour() ?? "", h("details", { open: open.has("places"), "data-title": "places" }, h("summary", null, "The same in other places"), table({ head: ["place", "g/kWh", "whole search", state.pick ? `training trial ${state.pick.n}` : "", "year"], rows, right: [1, 2, 3, 4] })));
}
function mattered() {
  const found = run.importance;
  $("s-mattered").hidden = !found.length;
  $("mattered").replaceChildren(...found.map((one) => h("div", null, h("h3", null, `for ${one.target}`), one.bars.length
    ? [one.bars.map(([name, drop, sd]) => bar(name, drop / one.bars[0][1], `${drop.toFixed(2)} ± ${sd.toFixed(2)}`)), h("p", { class: "small muted" }, `R² lost when the parameter is shuffled. The forest explains ${percent(one.r2)} of the variance on held-out configurations (R² = ${one.r2.toFixed(2)}). ${one.method}`)]
    : h("p", { class: "muted" }, `No ranking: ${one.reason} (n = ${plural(one.trials, "trial")}).`))));
}
function growth() {
  const steps = run.growth;
  $("s-growth").hidden = steps.length < 2;
  const box = $("growth"), width = Math.min(760, box.clientWidth);
  if (steps.length < 2 || !width) return;
  const last = steps.at(-1), rise = steps.filter((s, i) => i === 0 || s[2] > steps[i - 1][2]).at(-1), data = [[null, 0, 0], ...steps];
  const svg = Plot.plot({ width, height: 200, marginLeft: 44, marginBottom: 40, style: { background: "transparent", color: "var(--ink)" }, x: { label: `spent on trials (${run.unit.name}) →`, grid: true }, y: { label: "↑ hypervolume", grid: true, ticks: 4 }, marks: [Plot.line(data, { x: (s) => s[1] / run.unit.joules, y: (s) => s[2], curve: "step-after", stroke: "var(--front)", strokeWidth: 2 })] });
  svg.setAttribute("aria-hidden", "true");
  box.replaceChildren(h("div", { class: "plot", role: "img", "aria-label": `Hypervolume against energy: ${last[2].toFixed(3)} at the end` }, svg),
    h("p", { class: "small muted" }, `Share of a box that the front dominates: ${last[2].toFixed(3)}. It last rose with trial ${rise[0]}, after ${percent(last[1] ? rise[1] / last[1] : 1)} of the energy of all trials.`));
}
function measured() {
  const b = run.bill, how = (kind) => h("span", { class: `how ${kind}` }, kind), rows = [
    ...b.parts.map(([k, j, kind, by]) => [k, energy(j), how(kind), by, (b.lost.find(([name]) => name === k) ?? [null, null])[1] === null ? "" : `no reading for ${clock(b.lost.find(([name]) => name === k)[1])}`]),
    ...(b.wall ? [["at the wall", energy(b.wall.joules), how(b.wall.how), b.wall.by, "the whole machine, not part of the sum"]] : []), ...b.absent.map(([k, why]) => [k, "unknown", how("absent"), "-", why])];
  $("meters").replaceChildren(rows.length ? table({ head: ["part", "energy", "how", "meter", "remarks"], rows, right: [1] }) : h("p", null, "Nothing could be measured or estimated."));
  const shared = Object.entries(run.fixed).map(([k, v]) => `${k} ${value(v)}`).join(", ");
  $("same").textContent = shared ? `The same for all: ${shared}.` : "";
  $("origin").textContent = [run.command, run.hardware, run.started ? `started ${run.started.slice(0, 16).replace("T", " ")} UTC` : ""].filter(Boolean).join(" · ");
}
function statement() {
  if (run.so_far) return void $("statement").replaceChildren(h("p", null, `The statement is of the whole search, whose energy is known when it has ended and was shown: joulefront report ${run.folder} has it.`));
  const forms = run.statements, one = forms[state.form] ?? forms[0], button = h("button", { type: "button", onclick: () => copy(one.text, button) }, "copy");
  $("statement").replaceChildren(h("div", { class: "row", role: "group", "aria-label": "form of the statement" }, forms.map((f, i) => h("button", { type: "button", "aria-pressed": String(f === one), onclick: () => { state.form = i; statement(); $("statement").querySelector("[aria-pressed=true]").focus(); } }, f.name)), h("span", { style: "flex:1" }), button), h("pre", { tabindex: 0, "aria-label": `statement as ${one.name}` }, one.text));
}
function records() {
  const open = new Set([...document.querySelectorAll("#records details[open]")].map((d) => d.dataset.title));
  $("records").replaceChildren(...run.sections.map((one) => h("details", { "data-title": one.title, open: open.has(one.title) }, h("summary", null, h("h3", null, one.title)), one.lines.map((line) => h("p", { class: "small" }, line)), one.tables.map(table), one.notes.map((line) => h("p", { class: "small muted" }, line)))));
}

// -- the whole page -----------------------------------------------------------------------------------------------------------------------

const part = (title, id, ...children) => h("section", { id: `s-${id}`, "aria-labelledby": `h-${id}` }, h("h2", { id: `h-${id}` }, title), ...children);
const slider = (id, label, attributes, oninput) => h("label", { id: `l-${id}`, for: id }, label, h("output", { id: `o-${id}`, for: id }), h("input", { id, type: "range", step: "any", ...attributes, oninput }));
function skeleton() {
  $("page").replaceChildren(
    h("header", null, h("h1", null, run.name), h("p", { id: "lead" }), h("p", { id: "caveat", class: "warn small" }), h("p", { id: "now", role: "status" }), h("p", { id: "beside", class: "small noprint", hidden: true }, h("a", { href: "/dashboard/studies/0" }, "The same study in optuna-dashboard"))),
    h("div", { class: "choose", id: "choose" },
      part("Which model is worth its energy?", "front",
        h("div", { class: "controls" },
          slider("quality", `${run.metric} ${run.maximise ? "at least" : "at most"}`, { min: 0, max: 1000, step: 1, value: 0 }, limit), slider("energy", "energy at most", { min: 0, max: 1000, step: 1, value: 1000 }, limit),
          slider("uses", "predictions over its life", { min: 0, max: 10, step: 0.25, value: 0 }, (e) => { state.uses = +e.target.value ? Math.round(10 ** +e.target.value) : 0; limits(); apply(); draw(); })),
        h("div", { id: "presets", class: "row", role: "group", "aria-label": "Ways to choose" }), h("p", { id: "why", class: "small", role: "status" }),
        h("div", { id: "chart", class: "chart", role: "img" }),
        h("p", { class: "muted small noprint" }, "Click a model, or use the table below with the arrow keys."), h("p", { class: "muted small" }, "Whiskers: 95 % interval of the quality, two standard deviations of the energy. Further up is better, further left is cheaper. × is the mean of repeats, where there are any; ◇ the default model.")),
      h("section", { id: "details", "aria-live": "polite", "aria-labelledby": "h-pick" }),
      part("The models that nothing beats", "members", h("div", { class: "scroll" }, h("table", { id: "members" })), h("p", { id: "same", class: "muted small" }),
      h("details", { id: "rest", ontoggle: (e) => { if (e.target.open && !state.shown) { state.shown = 200; allTrials(); } } }, h("summary", null, `All ${plural(run.trials, "trial")}`),
        h("p", { class: "noprint" }, h("label", null, "with the text ", h("input", { id: "filter", type: "search", oninput: (e) => { state.filter = e.target.value.trim().toLowerCase(); state.shown = 200; allTrials(); } }))), h("div", { id: "all" })))),
    part("What the search cost, and when it pays back", "bill", h("div", { id: "bill" })), part("Carbon, here and elsewhere", "carbon", h("div", { id: "carbon" })),
    part("What mattered", "mattered", h("div", { id: "mattered", class: "two" })), part("How the search went", "growth", h("div", { id: "growth" })),
    part("How this was measured", "measured", h("div", { id: "meters" }), h("details", null, h("summary", null, "Words on this page"), list([
      ["front", "Models for which no other one is both better and cheaper."], ["sensible", "The cheapest model whose quality cannot be told from the best one's (95 %)."],
      ["knee", "After it, each further step of quality costs disproportionately more, on a logarithmic energy axis."], ["default model", "The task's ordinary choice at its default recipe, trained as trial 0: what the search is compared with."],
      ["measured", "Read from a meter."], ["estimated", "Computed from processor time and a power per core, not read from a meter."], ["absent", "Not known, and counted nowhere: never zero."]])), h("p", { id: "origin", class: "muted small" })),
    part("For a paper or a model card", "statement", h("p", { class: "muted small" }, "It counts the whole search, not only the chosen model."), h("div", { id: "statement" })),
    part("Everything else that was recorded", "records", h("div", { id: "records" })));
}
/** The ends of the sliders follow what the models cost over their life. */
function limits() {
  const [low, high] = d3.extent(run.members, lifetime), at = +$("energy").value;
  state.energy = at >= 1000 ? Infinity : low * (high / low) ** (at / 1000);
}
function limit() {
  const [low, high] = d3.extent(run.members, (m) => m.q), at = +$("quality").value / 1000;
  state.quality = at === 0 ? null : run.maximise ? low + (high - low) * at : high - (high - low) * at;
  state.rule = null;
  limits(); apply(); draw();
}
function reset() { $("quality").value = 0; $("energy").value = 1000; state.quality = null; limits(); }

/** From the cheapest to the best; where these are one model, what the others are there for. */
function range(first, top) {
  const best = `${quality(top.q)} for ${energy(top.j)}`, others = Object.keys(top.values).filter((name) => name !== "train_energy").map((name) => aims[name] ?? name).join(" or ");
  return first !== top ? `from ${quality(first.q)} for ${energy(first.j)} to ${best}` : run.members.length > 1 && others ? `${best} is the best and the cheapest, the others are better in ${others}` : best;
}
function words() {
  const b = run.bill, ends = d3.sort(run.members, (m) => m.j), top = run.choice && member(run.choice.best);
  document.title = `${run.name} - joulefront`;
  document.querySelector("h1").textContent = run.name;
  const some = run.members.length ? [h("b", null, `${count(run.members.length)} of ${count(run.trials)}`), ` trained models ${run.members.length === 1 ? "is" : "are"} worth a look: ${range(ends[0], top)}.`] : [`No model is on the front yet: ${plural(run.trials, "trial")}, ${count(run.failed)} failed, ${count(run.running)} running.`];
  $("lead").replaceChildren(run.description ? `${run.description} ` : "", ...some, run.complete_only ? " Only models trained to the last rung count." : "");
  const kinds = [...new Set(b.parts.map((p) => p[2]))].join(" and "), missing = b.absent.length ? ` ${b.absent.map(([k]) => k).join(", ")}: absent, and counted nowhere.` : "";
  const sure = run.scale ? ` All of it together is known to ±${gap}${percent(run.scale)} (standard uncertainty), which changes no comparison on this page.` : "";
  const rests = run.examples ? ` Quality rests on ${validated()}${run.counted && run.percent ? `: one is ${+(100 / run.examples).toPrecision(2)} points` : ""}.` : " How many examples quality rests on was not kept.";
  $("caveat").textContent = `Energy is ${run.measured || kinds || "unknown"}.${sure}${missing}${rests}`;
  const going = live ? !run.ended : run.running > 0;
  $("now").hidden = !going;
  $("now").replaceChildren(h("span", { class: "live" }, live ? "live" : "unfinished"), ` ${plural(run.running, "trial")} running, ${count(run.trials - run.running)} done${live ? "; this page follows the study" : "; a report made later has the rest"}.`);
  $("beside").hidden = !live;
}
function controls() {
  const show = (id, text) => { $(`o-${id}`).textContent = text; $(id).setAttribute("aria-valuetext", text); };
  show("quality", state.quality === null ? "any" : quality(state.quality));
  show("energy", state.energy === Infinity ? "any" : state.uses ? `${digits(state.energy / axisUnit()[1])} ${axisUnit()[0]}` : energy(state.energy));
  show("uses", many(state.uses));
  $("l-uses").hidden = !usable();
  const focus = document.activeElement?.dataset?.rule;
  $("presets").replaceChildren(...Object.keys(rules).map((name) => h("button", { type: "button", "data-rule": name, "aria-pressed": String(rules[name][0]() === state.pick), onclick: () => { reset(); choose(rules[name][0](), name); } }, name)));
  if (focus) $("presets").querySelector(`[data-rule=${focus}]`).focus();
  const none = run.members.every((m) => !allowed(m)) ? "No model fits both limits; the last choice stands. " : "";
  $("why").textContent = none + (state.rule ? rules[state.rule][1]() : none ? "" : state.rule === null ? "Chosen by your limits." : "");
}
function draw() {
  const focus = document.activeElement?.name === "pick";
  words(); measured(); bill(); carbon();
  const some = run.members.length > 0;
  $("s-front").hidden = $("details").hidden = $("members").hidden = !some; $("s-members").hidden = !run.trials;
  if (!some) return;
  controls(); chart(); details(); membersTable();
  if (focus) document.querySelector("#members input:checked").focus();
}
function fill() {
  apply(); draw(); mattered(); growth(); statement(); records();
  if (state.shown) allTrials();
}
/** While a study runs, ask for its data; a hidden page asks nothing, and an unchanged study answers with a line. */
async function follow() {
  if (!document.hidden) {
    try {
      const answer = await fetch("data.json", { cache: "no-cache" });
      const text = answer.ok ? await answer.text() : "";
      if (text && text !== follow.last) {
        follow.last = text; run = JSON.parse(text);
        document.querySelector("#rest > summary").textContent = `All ${plural(run.trials, "trial")}`;
        fill();
      }
    } catch (error) { $("now").hidden = false; $("now").textContent = "The server does not answer any more; this is the last that it said."; }
  }
  if (!run.ended) setTimeout(follow, every);
}

skeleton();
const wanted = member(+location.hash.match(/trial=(\d+)/)?.[1]);
if (wanted) Object.assign(state, { pick: wanted, rule: undefined });
if (run.uses && usable()) {
  state.uses = run.uses;
  $("uses").value = Math.log10(run.uses);
}
if (run.members.length) limits();
fill();
let width = 0;
new ResizeObserver(() => { if ($("chart").clientWidth !== width) { width = $("chart").clientWidth; chart(); growth(); } }).observe($("chart"));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", chart);
addEventListener("beforeprint", () => { chart(); growth(); });
addEventListener("hashchange", () => { const m = member(+location.hash.match(/trial=(\d+)/)?.[1]); if (m && m !== state.pick) choose(m); });
if (live && !run.ended) setTimeout(follow, every);
