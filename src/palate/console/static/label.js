// The labelling page. Every text of the data goes in as textContent; a label counts when the server says it is on disk.
(() => {
  "use strict";
  const { root, rater } = document.body.dataset;
  if (!rater) return;
  const $ = (id) => document.getElementById(id);
  const UNSURE = "unsure";
  let token = "", attributes = [], items = [], place = 0, busy = false, last = Promise.resolve();
  const said = new Map(); // "item_id\nattribute" -> {label, comment}

  const task = (at) => ({ item: items[Math.floor(at / attributes.length)], attribute: attributes[at % attributes.length] });
  const key = ({ item, attribute }) => JSON.stringify([item.item_id, attribute.name]);
  const total = () => items.length * attributes.length;
  const labelOf = (at) => said.get(key(task(at)));
  const draftKey = (at) => `palate:${rater}:${key(task(at))}`;
  const open = (from) => {
    for (let step = 0; step < total(); step += 1) {
      const at = (from + step) % total();
      if (!labelOf(at)) return at;
    }
    return -1;
  };

  const element = (tag, text, more = {}) => {
    const made = Object.assign(document.createElement(tag), more);
    if (text !== undefined) made.textContent = text;
    return made;
  };
  const trouble = (words) => {
    $("trouble").hidden = !words;
    $("trouble").textContent = words || "";
  };
  const status = (words, saved = false) => {
    $("status").textContent = words;
    $("status").classList.toggle("saved", saved);
  };

  const call = async (path, body) => {
    const headers = body ? { "content-type": "application/json", "x-palate-token": token } : {};
    const answer = await fetch(`${root}/label/${path}`, { method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body), cache: "no-store" });
    const found = await answer.json();
    return { status: answer.status, found };
  };

  // Another server, another token: ask for it once and say it again.
  const write = async (path, body) => {
    let answer = await call(path, body);
    if (answer.status === 403) {
      token = (await call(`state?rater=${encodeURIComponent(rater)}`)).found.token;
      answer = await call(path, body);
    }
    return answer;
  };

  const load = async () => {
    const { status: code, found } = await call(`state?rater=${encodeURIComponent(rater)}`);
    if (code !== 200) throw new Error(found.what);
    ({ token, attributes, items } = found);
    said.clear();
    for (const each of found.labels) said.set(JSON.stringify([each.item_id, each.attribute]), { label: each.label, comment: each.comment });
  };

  const progress = () => {
    let done = 0;
    for (let at = 0; at < total(); at += 1) done += labelOf(at) ? 1 : 0;
    $("progress").max = total();
    $("progress").value = done;
    $("count").textContent = `${done} of ${total()}`;
    document.body.dataset.done = done;
  };

  const show = () => {
    const { item, attribute } = task(place);
    $("place").textContent = `Item ${Math.floor(place / attributes.length) + 1} of ${items.length}`;
    if ($("title").dataset.id !== item.item_id) {
      $("title").dataset.id = item.item_id;
      $("title").replaceChildren(element("bdi", item.title));
      $("text").replaceChildren(element("bdi", item.text || "This item has no text."));
      $("text").classList.toggle("absent", !item.text);
      $("categories").replaceChildren(...item.categories.map((each) => {
        const tag = element("li", undefined, { className: "tag" });
        tag.append(element("bdi", each));
        return tag;
      }));
      $("pictures").replaceChildren(...Array.from({ length: item.pictures }, (_, n) =>
        element("img", undefined, { src: `${root}/label/picture?id=${encodeURIComponent(item.item_id)}&n=${n}`, alt: "" })));
      window.scrollTo(0, 0);
    }
    $("step").textContent = `Question ${(place % attributes.length) + 1} of ${attributes.length}: ${attribute.name.replaceAll("_", " ")}`;
    $("question").textContent = attribute.question;
    const now = labelOf(place);
    $("options").replaceChildren(...[...attribute.options, UNSURE].map((option, at) => {
      const last = at === attribute.options.length;
      const button = element("button", undefined, { type: "button", className: last ? "unsure" : "" });
      button.append(element("kbd", last ? "u" : at < 9 ? String(at + 1) : "·"), element("bdi", last ? "unsure" : option));
      button.setAttribute("aria-pressed", String(now?.label === option));
      button.addEventListener("click", ({ detail }) => detail < 2 && last.then(() => answer(option)));
      return button;
    }));
    $("comment").value = sessionStorage.getItem(draftKey(place)) ?? now?.comment ?? "";
    $("guidance").textContent = attribute.guidance;
    $("edges").hidden = !attribute.edge_cases.length;
    $("edges").querySelector("ul").replaceChildren(...attribute.edge_cases.map((each) => element("li", each)));
    $("examples").hidden = !attribute.examples.length;
    $("examples").querySelector("dl").replaceChildren(...attribute.examples.flatMap((each) => [element("dt", each.answer), element("dd", each.item)]));
    $("guide").hidden = !attribute.guidance && $("edges").hidden && $("examples").hidden;
    document.body.dataset.place = place;
    progress();
  };

  const goto = (at) => {
    place = Math.min(Math.max(at, 0), total() - 1);
    show();
  };

  const once = (work) => {
    if (!busy) last = doing(work); // a key pressed while a label is on its way would fall on an item not yet seen
    return last;
  };
  const doing = async (work) => {
    busy = true;
    try {
      await work();
      trouble("");
    } catch (error) {
      status("");
      trouble(`Not saved: ${error instanceof TypeError ? "the server does not answer. Start it again, then repeat." : error.message}`);
    } finally {
      busy = false;
    }
  };

  const keep = async (at, option, comment) => {
    const { item, attribute } = task(at);
    const { status: code, found } = await write("save", {
      rater, item_id: item.item_id, attribute: attribute.name, label: option, comment, seen: labelOf(at) ?? null,
    });
    if (code === 409) {
      if (found.now) said.set(key(task(at)), found.now);
      else said.delete(key(task(at)));
      show();
      throw new Error(`${found.what} There: ${found.now ? found.now.label : "nothing"}. Answer again to change it.`);
    }
    if (code !== 200) throw new Error(found.what);
    sessionStorage.removeItem(draftKey(at));
    said.set(key(task(at)), { label: found.label, comment: found.comment });
    return found.label;
  };

  const answer = (option) => once(async () => {
    status("Saving…");
    const saved = await keep(place, option, $("comment").value);
    const name = task(place).attribute.name.replaceAll("_", " ");
    const next = open(place + 1);
    goto(next < 0 ? place : next);
    status(next < 0 ? "Saved. Everything in the queue is labelled: thank you." : `Saved ${name}: ${saved}`, true);
  });

  const undo = () => once(async () => {
    const { status: code, found } = await write("undo", { rater });
    if (code !== 200) throw new Error(found.what);
    if (!found.undone) return status("There is nothing to undo.");
    const { item_id: id, attribute, undone, label, comment } = found.undone;
    if (label) said.set(JSON.stringify([id, attribute]), { label, comment });
    else said.delete(JSON.stringify([id, attribute]));
    const item = items.findIndex((each) => each.item_id === id);
    const column = attributes.findIndex((each) => each.name === attribute);
    goto(item < 0 || column < 0 ? place : item * attributes.length + column);
    return status(`Took back ${attribute.replaceAll("_", " ")}: ${undone}`);
  });

  const comment = () => once(async () => {
    const now = labelOf(place);
    if (!now || (now.comment ?? "") === $("comment").value.trim()) return;
    status("Saving…");
    await keep(place, now.label, $("comment").value);
    progress();
    status("Comment saved", true);
  });

  const KEYS = {
    u: () => answer(UNSURE),
    z: undo,
    c: () => $("comment").focus(),
    n: () => { const next = open(place + 1); if (next >= 0) goto(next); },
    ArrowLeft: () => goto(place - 1),
    ArrowRight: () => goto(place + 1),
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || !total()) return;
    if (event.target === $("comment")) {
      if (event.key === "Escape") $("comment").blur();
      return;
    }
    const { options } = task(place).attribute;
    const digit = /^[1-9]$/.test(event.key) ? Number(event.key) : 0;
    const work = digit && digit <= options.length ? () => answer(options[digit - 1]) : KEYS[event.key];
    if (!work) return;
    event.preventDefault();
    if (busy) return;
    work();
  });
  $("comment").addEventListener("input", () => sessionStorage.setItem(draftKey(place), $("comment").value));
  $("comment").addEventListener("change", comment);

  document.addEventListener("visibilitychange", () => {
    if (!document.hidden && document.body.dataset.ready) once(async () => { await load(); show(); }); // other windows
  });

  once(async () => {
    await load();
    $("main").hidden = false;
    const first = open(0);
    goto(first < 0 ? 0 : first);
    if (first < 0) status("Everything in the queue is labelled: thank you.", true);
    document.body.dataset.ready = "yes";
  });
})();
