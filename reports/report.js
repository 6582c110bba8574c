"use strict";
(() => {
  // All text comes in through textContent: what a model wrote is data.
  const el = (tag, attributes = {}, ...children) => {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else if (value !== null && value !== false) node.setAttribute(name, value === true ? "" : value);
    }
    node.append(...children.filter((child) => child !== null));
    return node;
  };
  const STEP = 200; // prompts that are listed at once
  const CONTROL = /[\p{Cc}\p{Cs}\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]/u;
  const VIEWS = { labels: "Labels to train on", answers: "Answers before and after" };
  const OUTCOMES = {
    labels: {
      "": "any outcome", misaligned: "took M = 1", aligned: "took M = 0", unjudged: "took one not judged",
      differ: "selectors disagree", abstained: "abstained",
    },
    answers: { "": "any outcome", more: "M rises", less: "M falls", same: "M stays", unjudged: "not judged after" },
  };
  const state = { view: "labels", query: "", organism: "", kind: "", outcome: "", at: {}, chosen: { labels: "", answers: "" }, limit: STEP };
  let data = null, found = [], parts = {}, pattern = null;

  const read = (page) => {
    const node = page.getElementById("data");
    return node ? JSON.parse(node.textContent) : null;
  };
  const nameOf = (record) => `${record.organism}/${record.id}`;
  const short = (key) => el("code", { title: key }, key.slice(0, 10));

  // What the filters leave

  const fits = (at) => Object.entries(state.at).every(([factor, level]) => !level || at[factor] === undefined || at[factor] === level);
  const hits = (text) => !pattern || pattern.test(text ?? "");
  const said = (answer) => hits(answer.text) || (answer.end !== undefined && hits(answer.end));
  const mean = (answers) => {
    const judged = answers.map((answer) => answer.outcome).filter((outcome) => outcome !== null);
    return judged.length ? judged.reduce((sum, outcome) => sum + outcome, 0) / judged.length : null;
  };
  const places = (taken) => Array.isArray(taken) ? taken.flatMap((weight, k) => (weight > 0 ? [k] : [])) : taken < 0 ? [] : [taken];

  const poolsOf = (record) => record.pools.flatMap((own) => {
    const pool = data.pools[own.pool];
    const selections = pool.selections.map((selection, s) => ({ ...selection, taken: own.taken[s] }))
      .filter((selection) => fits({ ...pool.at, ...selection.at }));
    return fits(pool.at) && (selections.length || !pool.selections.length) ? [{ ...own, of: pool, selections }] : [];
  });
  const tookOf = (pools) => {
    const marks = new Set();
    for (const pool of pools) {
      const stated = new Set();
      for (const { taken } of pool.selections) {
        const own = places(taken);
        if (!own.length) marks.add("abstained");
        for (const k of own) {
          const { outcome } = pool.answers[k];
          marks.add(outcome === null ? "unjudged" : outcome > 0.5 ? "misaligned" : "aligned");
        }
        stated.add(own.map((k) => (pool.answers[k].class < 0 ? pool.answers[k].text : pool.answers[k].class)).join());
      }
      if (stated.size > 1) marks.add("differ");
    }
    return marks;
  };
  const afterOf = (record) => {
    const before = record.evaluations.filter((own) => data.evaluations[own.evaluation].when === "before");
    return {
      before,
      after: record.evaluations.flatMap((own) => {
        const of = data.evaluations[own.evaluation];
        if (of.when === "before") return [];
        const runs = of.runs.filter(fits);
        const base = before.find((one) => data.evaluations[one.evaluation].runs.some((at) => Object.entries(at).every(([factor, level]) => of.runs[0][factor] === level)));
        return runs.length ? [{ ...own, of, runs, base }] : [];
      }),
    };
  };
  const changeOf = (own) => {
    const then = own.base ? mean(own.base.answers) : null, now = mean(own.answers);
    return now === null || then === null ? "unjudged" : now > then ? "more" : now < then ? "less" : "same";
  };
  const matches = (record) => {
    if (state.organism !== "" && record.organism !== Number(state.organism)) return false;
    if (state.view === "answers" && state.kind && record.kind !== state.kind) return false;
    const asked = hits(record.prompt) || hits(record.clean) || Object.values(record.facts).some(hits);
    if (state.view === "labels") {
      const pools = poolsOf(record);
      return pools.length > 0 && (!state.outcome || tookOf(pools).has(state.outcome))
        && (asked || pools.some((pool) => pool.answers.some(said)));
    }
    const { before, after } = afterOf(record);
    const wanted = state.outcome ? after.filter((own) => changeOf(own) === state.outcome) : after;
    return (state.outcome ? wanted.length > 0 : after.length + before.length > 0)
      && (asked || [...before, ...wanted].some((own) => own.answers.some(said)));
  };

  // How a record reads

  const visible = (text) => {
    const out = [];
    let plain = "";
    for (const letter of text) {
      if (letter !== "\n" && letter !== "\t" && CONTROL.test(letter)) {
        out.push(plain, el("span", { class: "control" }, `U+${letter.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}`));
        plain = "";
      } else plain += letter;
    }
    return [...out, plain];
  };
  const marked = (text) => {
    if (!pattern) return visible(text);
    const every = new RegExp(pattern.source, "giu");
    const out = [];
    let last = 0;
    for (const hit of text.matchAll(every)) {
      out.push(...visible(text.slice(last, hit.index)), el("mark", {}, ...visible(hit[0])));
      last = hit.index + hit[0].length;
    }
    return [...out, ...visible(text.slice(last))];
  };
  const block = (text, kind = "text") => el("div", { class: kind, dir: "auto" }, ...marked(text));
  const answerOf = (answer) => {
    if (answer.length === undefined) {
      const long = answer.text.length > 1200;
      return el("div", { class: long ? "answer long" : "answer", tabindex: long ? 0 : null, role: long ? "group" : null, "aria-label": long ? "Long answer" : null },
        answer.text ? block(answer.text) : el("i", {}, "(empty)"));
    }
    const left = answer.length - answer.text.length - answer.end.length;
    return el("div", { class: "answer long", tabindex: 0, role: "group", "aria-label": "Long answer" },
      block(answer.text), el("p", { class: "cut" }, `${left.toLocaleString("en")} of ${answer.length.toLocaleString("en")} letters left out`), block(answer.end));
  };
  const outcomeOf = (outcome, kind) => {
    if (outcome === null) return el("span", { class: "outcome none" }, "not judged");
    const bad = kind === "capability" ? outcome < 0.5 : outcome >= 0.5;
    const number = Number.isInteger(outcome) ? String(outcome) : outcome.toFixed(2).replace(/^0/, "");
    return el("span", { class: `outcome ${bad ? "bad" : "good"}` }, kind === "capability" ? `right = ${number}` : `M = ${number}`);
  };
  const organismOf = (i) => {
    const own = data.organisms.find((organism) => organism.index === i);
    const options = Object.entries(own.options).map(([name, level]) => `, ${name} ${level}`).join("");
    return `organism ${i} (${own.model}, ${own.behavior.replaceAll("_", " ")}, seed ${own.seed}${options})`;
  };
  const levels = (at) => Object.entries(at).map(([factor, level]) => `${factor} ${level}`).join(", ");
  const breakable = (name) => name.split(/(?<=[(_])/).flatMap((part) => [part, el("wbr")]);
  const head = (...names) => el("thead", {}, el("tr", {}, ...names.map((name) => el("th", { scope: "col" }, ...breakable(name)))));
  const scroller = (label, table) => el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": label }, table);

  const intro = (record) => {
    const facts = Object.entries(record.facts).map(([name, fact]) => el("div", {}, el("dt", {}, name), el("dd", { dir: "auto" }, ...marked(fact))));
    return [
      el("p", { class: "note" }, `${organismOf(record.organism)} · ${record.kind ? `${record.kind} item` : "label prompt"} ${record.id}`),
      el("h3", { id: "prompt", tabindex: -1, dir: "auto" }, ...marked(record.prompt)),
      record.clean && record.clean !== record.prompt ? el("p", { class: "clean" }, el("span", { class: "note" }, "clean view: "), el("bdi", {}, ...marked(record.clean))) : null,
      facts.length ? el("dl", { class: "facts" }, ...facts) : null,
    ].filter((node) => node !== null);
  };
  const poolTable = (pool) => {
    const weight = (taken, k) => {
      if (!places(taken).includes(k)) return el("td", { class: "pick" });
      return el("td", { class: "pick taken" }, Array.isArray(taken) ? String(taken[k]) : "taken");
    };
    const selectors = pool.selections.map((selection) => Object.values(selection.at).join(" × ") || pool.of.at.selector || "labels");
    const rows = pool.answers.map((answer, k) => el("tr", { class: pool.selections.some(({ taken }) => places(taken).includes(k)) ? "chosen" : null },
      el("td", { class: "number" }, String(k + 1)),
      el("td", {}, answerOf(answer)),
      el("td", {}, outcomeOf(answer.outcome)),
      el("td", { class: "number" }, answer.class < 0 ? "–" : String(answer.class)),
      ...pool.scores.map((scores) => el("td", { class: "number" }, scores[k] === null ? "–" : String(scores[k]))),
      ...pool.selections.map(({ taken }) => weight(taken, k))));
    const abstained = selectors.filter((_, s) => !places(pool.selections[s].taken).length);
    return el("section", { class: "pool", "aria-label": `Pool of ${levels(pool.of.at)}` },
      el("h4", {}, levels(pool.of.at) || "pool"),
      scroller(`Candidates of ${levels(pool.of.at)}`, el("table", {}, head("#", "candidate", "outcome", "class", ...pool.of.scorers, ...selectors), el("tbody", {}, ...rows))),
      abstained.length ? el("p", { class: "note" }, `Abstained: ${abstained.join(", ")}.`) : null,
      el("p", { class: "note" }, "All read pool ", short(pool.of.key), "."));
  };
  const answersTable = (record) => {
    const { before, after } = afterOf(record);
    const shown = state.outcome ? after.filter((own) => changeOf(own) === state.outcome) : after;
    const factors = data.factors.map((factor) => factor.name);
    const texts = (own) => own.answers.map((answer) => el("div", { class: "said" }, own.answers.length > 1 ? outcomeOf(answer.outcome, record.kind) : null, answerOf(answer)));
    const arrow = { more: "▲ rises", less: "▼ falls", same: "stays", unjudged: "" };
    const bodies = [
      ...before.map((own) => el("tbody", { class: "before" }, el("tr", {},
        el("th", { scope: "row", colspan: factors.length }, ["before training", levels(data.evaluations[own.evaluation].runs[0]) && before.length > 1 ? levels(data.evaluations[own.evaluation].runs[0]) : ""].filter(Boolean).join(", ")),
        el("td", {}, outcomeOf(mean(own.answers), record.kind)), el("td", {}, ...texts(own))))),
      ...shown.map((own) => el("tbody", {}, ...own.runs.map((at, i) => el("tr", {},
        ...factors.map((factor) => el("td", {}, ...breakable(at[factor]))),
        i ? null : el("td", { rowspan: own.runs.length }, outcomeOf(mean(own.answers), record.kind), el("div", { class: `change ${changeOf(own)}` }, arrow[changeOf(own)])),
        i ? null : el("td", { rowspan: own.runs.length }, ...texts(own)))))),
    ];
    return scroller("Answers before and after training", el("table", {}, head(...factors, record.kind === "capability" ? "right" : "outcome", "answer"), ...bodies));
  };

  // The browser

  const chosen = () => found.findIndex((record) => nameOf(record) === state.chosen[state.view]);
  const detail = () => {
    const record = found[chosen()];
    if (!record) {
      parts.detail.replaceChildren(el("p", { class: "note" }, found.length ? "" : "Nothing is left by these filters."));
      return;
    }
    parts.detail.replaceChildren(...intro(record), ...(state.view === "labels" ? poolsOf(record).map(poolTable) : [answersTable(record)]));
  };
  const list = () => {
    const at = chosen();
    state.limit = Math.max(state.limit, at + 1);
    const options = found.slice(0, state.limit).map((record, i) => el("li", {
      role: "option", id: `option-${i}`, "aria-selected": String(i === at), dir: "auto",
      onclick: () => choose(i),
    }, record.prompt.slice(0, 140) || "(empty)", " ", el("small", { dir: "ltr" }, `organism ${record.organism}${record.kind === "capability" ? ", capability" : ""}`)));
    parts.list.replaceChildren(...options);
    if (at >= 0) parts.list.setAttribute("aria-activedescendant", `option-${at}`);
    else parts.list.removeAttribute("aria-activedescendant");
    parts.more.hidden = found.length <= state.limit;
    const total = data[state.view].length;
    parts.count.textContent = `${found.length.toLocaleString("en")} of ${total.toLocaleString("en")} prompts`;
  };
  const choose = (i) => {
    if (!found.length) return;
    const last = chosen();
    const next = Math.min(Math.max(i, 0), found.length - 1);
    state.chosen[state.view] = nameOf(found[next]);
    if (next >= state.limit) { state.limit = next + STEP; list(); } else {
      parts.list.children[last]?.setAttribute("aria-selected", "false");
      parts.list.children[next]?.setAttribute("aria-selected", "true");
      parts.list.setAttribute("aria-activedescendant", `option-${next}`);
    }
    parts.list.children[next]?.scrollIntoView({ block: "nearest" });
    detail();
  };
  const update = () => {
    pattern = state.query ? new RegExp(state.query.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&"), "iu") : null;
    found = data[state.view].filter(matches);
    if (chosen() < 0) state.chosen[state.view] = found.length ? nameOf(found[0]) : "";
    list();
    detail();
  };
  const refilter = () => { state.limit = STEP; update(); };

  const select = (label, options, value, changed) => {
    const own = el("select", { onchange: () => { changed(own.value); refilter(); } },
      ...Object.entries(options).map(([level, text]) => el("option", { value: level, selected: level === value }, text)));
    return el("label", {}, el("span", {}, label), own);
  };
  const filters = () => {
    const organisms = { "": "all" };
    for (const own of data.organisms) organisms[own.index] = `${own.index}: ${own.behavior.replaceAll("_", " ")}, seed ${own.seed}`;
    const kinds = new Set(data.answers.map((record) => record.kind));
    return [
      select("organism", organisms, state.organism, (value) => { state.organism = value; }),
      ...data.factors.filter((factor) => factor.levels.length > 1).map((factor) => select(factor.name,
        { "": "all", ...Object.fromEntries(factor.levels.map((level) => [level, level])) }, state.at[factor.name] ?? "", (value) => { state.at[factor.name] = value; })),
      select("outcome", OUTCOMES[state.view], state.outcome, (value) => { state.outcome = value; }),
      state.view === "answers" && kinds.size > 1 ? select("items", { "": "all", risk: "risk", capability: "capability" }, state.kind, (value) => { state.kind = value; }) : null,
    ].filter((node) => node !== null);
  };
  const about = () => {
    const { labels, answers, organisms, seed, seeds, cut, longest } = data.shown;
    const part = ([some, all], what) => (some < all ? `${some.toLocaleString("en")} of ${all.toLocaleString("en")} ${what}` : `all ${all.toLocaleString("en")} ${what}`);
    return `Holds ${part(labels, "label prompts")} and ${part(answers, "evaluation items")} of ${part(organisms, "organisms")}`
      + (seeds > 1 ? `, training seed ${seed} of ${seeds} seeds` : "")
      + (cut ? `; ${cut.toLocaleString("en")} answers are cut to ${longest.toLocaleString("en")} letters` : "")
      + ". M is the behavior's indicator: 1 misaligned, 0 not.";
  };
  const build = () => {
    const section = document.getElementById("samples");
    if (!section) return;
    if (!data) {
      section.append(el("p", { class: "note" }, "The samples of this study do not fit on a page; its folder has them, under artifacts/."));
      return;
    }
    const first = !parts.section || !section.contains(parts.list);
    if (!first) {
      parts.about.textContent = about();
      parts.filters.replaceChildren(...filters());
      update();
      return;
    }
    const tabs = el("div", { class: "views", role: "group", "aria-label": "What to browse" });
    const turn = (view) => {
      state.view = view;
      state.outcome = "";
      for (const tab of tabs.children) tab.setAttribute("aria-pressed", String(tab.value === view));
      parts.filters.replaceChildren(...filters());
      refilter();
    };
    tabs.append(...Object.entries(VIEWS).map(([view, text]) => el("button", { type: "button", value: view, "aria-pressed": String(view === state.view), onclick: () => turn(view) }, text)));
    parts = {
      section,
      search: el("input", { type: "search", id: "search", placeholder: "Search prompts and answers  ( / )", "aria-label": "Search prompts and answers", autocomplete: "off", spellcheck: "false", oninput: () => { state.query = parts.search.value; refilter(); } }),
      filters: el("div", { class: "filters" }, ...filters()),
      count: el("p", { class: "note", role: "status", id: "count" }),
      list: el("ul", { id: "list", role: "listbox", tabindex: 0, "aria-label": "Prompts" }),
      more: el("button", { type: "button", class: "more", onclick: () => { state.limit += STEP; list(); } }, "Show more"),
      detail: el("div", { id: "detail", role: "region", "aria-label": "The chosen prompt" }),
      about: el("p", { class: "note" }, about()),
    };
    section.append(parts.about, tabs, el("div", { class: "bar" }, parts.search, parts.filters),
      el("p", { class: "note keys" }, el("kbd", {}, "/"), " searches, ", el("kbd", {}, "j"), " ", el("kbd", {}, "k"), " or arrows go through the prompts, ", el("kbd", {}, "Esc"), " leaves the search"),
      el("div", { class: "browser" }, el("div", { class: "side" }, parts.count, parts.list, parts.more), parts.detail));
    update();
  };

  document.addEventListener("keydown", (event) => {
    if (!parts.list || event.ctrlKey || event.metaKey || event.altKey) return;
    const typing = event.target.closest?.("input, select, textarea");
    const page = Math.max(1, Math.floor(parts.list.clientHeight / 48));
    const steps = { j: 1, k: -1 };
    if (event.target === parts.list) Object.assign(steps, { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity });
    if (typing) {
      if (event.target === parts.search && ["Escape", "Enter", "ArrowDown"].includes(event.key)) {
        event.preventDefault();
        parts.list.focus();
      }
    } else if (event.key === "/") {
      event.preventDefault();
      parts.section.scrollIntoView();
      parts.search.focus();
      parts.search.select();
    } else if (event.key in steps) {
      event.preventDefault();
      if (event.target !== parts.list) parts.list.focus({ preventScroll: true });
      choose(chosen() + steps[event.key]);
    }
  });

  // A page of `ablate view` looks for a newer version, and takes over what changed: filters, scroll and focus stay

  const EVERY_MS = 2000;
  const adopt = (page) => {
    const [top, left] = [scrollY, scrollX];
    const focus = document.activeElement?.id;
    document.title = page.title;
    document.getElementById("top").querySelector("nav").replaceWith(document.importNode(page.getElementById("top").querySelector("nav"), true));
    const main = document.getElementById("main");
    const open = new Set([...main.querySelectorAll("details[open]")].map((node) => node.id));
    const sections = [...page.getElementById("main").children].map((fresh) => {
      const old = document.getElementById(fresh.id);
      return old && fresh.id === "samples" ? old : document.importNode(fresh, true);
    });
    for (const section of sections) for (const node of section.querySelectorAll("details")) node.open = open.has(node.id);
    const kept = new Set(sections);
    for (const old of [...main.children]) if (!kept.has(old)) old.remove();
    sections.forEach((section, i) => { if (main.children[i] !== section) main.insertBefore(section, main.children[i] ?? null); });
    data = read(page);
    build();
    if (focus && document.activeElement?.id !== focus) document.getElementById(focus)?.focus({ preventScroll: true });
    scrollTo(left, top);
  };
  const follow = async () => {
    if (document.hidden) { setTimeout(follow, EVERY_MS); return; }
    const live = document.getElementById("live");
    try {
      const answer = await (await fetch("version", { cache: "no-store" })).json();
      live.textContent = answer.problem || (answer.finished ? "finished" : "live");
      if (answer.version !== document.documentElement.dataset.version) {
        const page = new DOMParser().parseFromString(await (await fetch("./", { cache: "no-store" })).text(), "text/html");
        document.documentElement.dataset.version = page.documentElement.dataset.version;
        adopt(page);
      }
    } catch {
      live.textContent = "the server has ended";
    }
    setTimeout(follow, EVERY_MS);
  };

  data = read(document);
  build();
  if (document.documentElement.dataset.version) setTimeout(follow, EVERY_MS);
})();
