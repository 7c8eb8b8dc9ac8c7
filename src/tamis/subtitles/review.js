// The proof-reading page itself. review_cues.js stands before it and holds what can be said without a page.

function startPage() {
  const data = JSON.parse(document.getElementById("data").textContent);
  const storageKey = `tamis-review:${data.key}`;
  const $ = (id) => document.getElementById(id);
  const cards = new Map(); // cue -> its element
  const shownBy = new WeakMap(); // element -> its cue
  const undoStack = [];
  let cues = [];
  let ordered = []; // by time
  let current = null;
  let changed = false;
  let saveTimer = 0;
  let statusTimer = 0;
  const INVALID = '.times [aria-invalid="true"]';

  const make = (tag, properties) => Object.assign(document.createElement(tag), properties);
  const threshold = () => Number($("threshold").value);
  const isDoubtful = (cue) => cue.confidence < threshold();

  // State

  const asRead = () => data.cues.map(cueAsRead);

  function restored() {
    try {
      return restoreCues(localStorage.getItem(storageKey), asRead());
    } catch {
      return null; // no storage here, or nothing of ours
    }
  }

  function keep() {
    changed = true;
    clearTimeout(saveTimer);
    saveTimer = setTimeout(keepNow, 300);
  }

  function keepNow() {
    clearTimeout(saveTimer);
    if (!changed) return;
    const plain = cues.map(({ start, end, text, reviewed, from }) => ({ start, end, text, reviewed, from }));
    try {
      localStorage.setItem(storageKey, JSON.stringify({ version: 1, cues: plain }));
      changed = false; // or this page, left open, would put it over what another one keeps later
    } catch {
      say("This browser does not keep your work: save the .srt before you leave.");
    }
  }

  // For each change that a text field's own undo does not know. `takeBack` returns the cue to go to; it touches only
  // what the change touched, so that words typed since then stay.
  function remember(takeBack) {
    undoStack.push(takeBack);
    $("undo").disabled = false;
  }

  function undo() {
    const takeBack = undoStack.pop();
    if (!takeBack) return;
    const cue = takeBack();
    $("undo").disabled = !undoStack.length;
    arrange();
    keep();
    goTo(cue);
    say("Undone.");
  }

  // Drawing. A card holds only its text until it comes near the window, so that 1500 of them are as light as 20.

  const near = new IntersectionObserver(
    (entries) => {
      for (const { target, isIntersecting } of entries) {
        if (isIntersecting) fill(target);
        else if (!target.contains(document.activeElement) && !target.querySelector(INVALID)) empty(target);
      }
    },
    { rootMargin: "1500px" },
  );

  function makeCard(cue) {
    const card = make("li", { className: "card", tabIndex: -1 });
    cards.set(cue, card);
    shownBy.set(card, cue);
    empty(card);
    near.observe(card);
    return card;
  }

  function dropCard(cue) {
    near.unobserve(cards.get(cue));
    cards.get(cue).remove();
    cards.delete(cue);
  }

  function empty(card) {
    card.replaceChildren(make("p", { className: "stub", lang: data.language, textContent: shownBy.get(card).text }));
  }

  const isFilled = (card) => card.childElementCount > 1;

  function fill(card) {
    if (isFilled(card)) return;
    const cue = shownBy.get(card);
    card.replaceChildren($("card").content.cloneNode(true));
    card.querySelector(".words").lang = data.language;
    card.querySelector(".start").value = clock(cue.start, ",");
    card.querySelector(".end").value = clock(cue.end, ",");
    drawPictures(cue, card.querySelector(".pictures"));
    setText(cue, cue.text);
    drawFacts(cue, card);
  }

  function drawPictures(cue, box) {
    const sources = cue.from.map((i) => data.cues[i]?.picture).filter(Boolean);
    box.replaceChildren(...sources.map((src) => Object.assign(new Image(), { src, alt: "", decoding: "async" })));
    if (!sources.length) box.append(make("p", { className: "none", textContent: "no picture" }));
  }

  // The text of a cue, and of its field when that shows another.
  function setText(cue, text) {
    cue.text = text;
    const card = cards.get(cue);
    if (!isFilled(card)) return empty(card);
    const field = card.querySelector("textarea");
    if (field.value !== text) field.value = text;
    fit(field);
    return drawText(cue, card);
  }

  // For browsers in which a field does not grow with its text by itself.
  function fit(field) {
    if (CSS.supports("field-sizing", "content")) return;
    field.style.height = "auto";
    field.style.height = `${field.scrollHeight + 2}px`; // and its border
  }

  function drawText(cue, card) {
    const sure = confidences(cue.read, cue.sure, cue.text);
    const behind = card.querySelector(".behind");
    const doubts = card.querySelector(".doubts");
    behind.replaceChildren();
    doubts.replaceChildren();
    Array.from(cue.text).forEach((character, i) => {
      const low = sure[i] !== null && sure[i] < 90 && character.trim();
      if (!low) return behind.append(character);
      const mark = make("mark", { textContent: character });
      if (sure[i] < 60) mark.className = "strong";
      behind.append(mark);
      if (doubts.childElementCount < 8) {
        doubts.append(make("span", {}));
        doubts.lastChild.append(make("b", { textContent: character }), ` ${sure[i]} %`);
      }
      return undefined;
    });
  }

  function drawFacts(cue, card) {
    const place = ordered.indexOf(cue);
    const following = ordered[place + 1];
    const name = `Subtitle ${place + 1}`;
    const edited = cue.text !== cue.read;
    const sure = cue.from.length ? `${cue.confidence} % sure${edited ? ", edited" : ""}` : "added";
    card.querySelector(".number").textContent = place + 1;
    card.querySelector(".sure").textContent = cue.reviewed ? "reviewed" : sure;
    card.querySelector(".note").textContent = timeTrouble(cue, following);
    card.querySelector("[data-do=review]").checked = cue.reviewed;
    card.querySelector("[data-do=merge]").disabled = !following;
    card.querySelector("textarea").setAttribute("aria-label", `${name}, text`);
    card.querySelector(".start").setAttribute("aria-label", `${name}, start`);
    card.querySelector(".end").setAttribute("aria-label", `${name}, end`);
    card.querySelector(".play").hidden = $("player").hidden;
  }

  // Brings numbers, marks and counts up to date after any change.
  function refresh() {
    ordered = inTime(cues);
    for (const [cue, card] of cards) {
      card.classList.toggle("doubtful", isDoubtful(cue));
      card.classList.toggle("done", cue.reviewed);
      card.classList.toggle("current", cue === current);
      if (isFilled(card)) drawFacts(cue, card);
    }
    const reviewed = cues.filter((cue) => cue.reviewed).length;
    const doubtful = cues.filter((cue) => isDoubtful(cue) && !cue.reviewed).length;
    $("count").textContent = `${reviewed} of ${cues.length} reviewed, ${doubtful} doubtful left`;
    $("progress").value = cues.length ? reviewed / cues.length : 0;
    $("empty").hidden = cues.length > 0;
  }

  // Puts the cards in the chosen order.
  function arrange() {
    for (const cue of [...cards.keys()].filter((cue) => !cues.includes(cue))) dropCard(cue);
    for (const cue of cues) if (!cards.has(cue)) makeCard(cue);
    const list = document.createDocumentFragment();
    for (const [heading, some] of arranged(cues, $("order").value, threshold(), $("show").value)) {
      if (heading) {
        list.append(make("li", { className: "heading", textContent: `${heading} (${some.length})` }));
      }
      for (const cue of some) list.append(cards.get(cue));
    }
    $("cues").replaceChildren(list);
    if (!cards.get(current)?.isConnected) current = null; // no key shall change what nobody sees
    refresh();
    [...$("cues").querySelectorAll(".card")].slice(0, 8).forEach(fill); // at once, not with the next frame
  }

  // Takes cues out and puts others in at the place of the first; the rest stays where it stands on the page.
  function replaceCues(out, into, place = out[0]) {
    remember(() => {
      cues = inTime([...cues.filter((cue) => !into.includes(cue)), ...out]);
      return out[0] ?? cues[0];
    });
    const card = cards.get(place);
    cues = inTime([...cues.filter((cue) => !out.includes(cue)), ...into]);
    if (card?.isConnected) {
      card.after(...into.map(makeCard));
      out.forEach(dropCard);
      if (out.includes(current)) current = null;
      refresh();
      into.forEach((cue) => fill(cards.get(cue)));
    } else arrange();
    keep();
  }

  function say(sentence) {
    clearTimeout(statusTimer);
    $("status").textContent = sentence;
    $("status").classList.add("seen");
    statusTimer = setTimeout(() => $("status").classList.remove("seen"), 3500);
  }

  // Moving

  const onPage = () => [...$("cues").querySelectorAll(".card")].map((card) => shownBy.get(card));

  function goTo(cue) {
    const card = cue && cards.get(cue);
    if (!card) return;
    if (!card.isConnected) {
      $("show").value = "all";
      arrange();
    }
    fill(card);
    card.scrollIntoView({ block: "center" });
    card.querySelector("textarea").focus({ preventScroll: true });
  }

  function step(by) {
    const list = onPage();
    const at = list.indexOf(current);
    goTo(list[at < 0 ? 0 : Math.min(Math.max(at + by, 0), list.length - 1)]);
  }

  function nextDoubtful() {
    const list = onPage();
    const at = list.indexOf(current);
    const waiting = (cue) => isDoubtful(cue) && !cue.reviewed && cue !== current;
    const next = list.slice(at + 1).find(waiting) ?? list.find(waiting);
    if (next) goTo(next);
    else say("No doubtful subtitle is left.");
  }

  function review(cue, reviewed) {
    Object.assign(cue, { reviewed });
    refresh();
    keep();
  }

  // Changing

  function addAfter(cue) {
    const following = ordered[ordered.indexOf(cue) + 1];
    const start = cue ? Math.max(cue.start, cue.end) : 0;
    const end = following && following.start > start ? Math.min(following.start, start + 2000) : start + 2000;
    const fresh = { start, end, text: "", reviewed: false, from: [], read: "", sure: [], confidence: 100, top: false };
    replaceCues([], [fresh], cue);
    goTo(fresh);
  }

  function split(cue) {
    const field = cards.get(cue).querySelector("textarea");
    const parts = splitCue(cue, field.selectionStart);
    if (!parts) return say("Put the cursor where the second part begins.");
    replaceCues([cue], parts);
    return goTo(parts[1]);
  }

  function merge(cue) {
    const following = ordered[ordered.indexOf(cue) + 1];
    if (!following) return;
    const whole = mergeCues(cue, following);
    replaceCues([cue, following], [whole]);
    goTo(whole);
  }

  function remove(cue) {
    const list = onPage();
    const neighbour = list[list.indexOf(cue) + 1] ?? list[list.indexOf(cue) - 1];
    replaceCues([cue], []);
    say("Deleted. Undo brings it back.");
    goTo(neighbour);
  }

  function editText(cue, text) {
    setText(cue, text);
    drawFacts(cue, cards.get(cue));
    keep();
  }

  function editTime(cue, field, ms) {
    const which = field.className;
    field.setAttribute("aria-invalid", String(ms === null));
    if (ms === null || cue[which] === ms) return;
    cue[which] = ms;
    refresh();
    keep();
  }

  function findNext() {
    const wanted = $("find").value;
    const list = onPage();
    const at = list.indexOf(current);
    const found = wanted && [...list.slice(at + 1), ...list.slice(0, at + 1)].find((cue) => cue.text.includes(wanted));
    if (!found) return say(wanted ? "Not found." : "Type what to find.");
    goTo(found);
    const field = cards.get(found).querySelector("textarea");
    const place = found.text.indexOf(wanted);
    return field.setSelectionRange(place, place + wanted.length);
  }

  function replaceAll() {
    const [wanted, instead] = [$("find").value, $("replacement").value];
    const hits = cues.filter((cue) => occurrences(cue.text, wanted));
    if (!hits.length) return say("Not found.");
    const changes = hits.map((cue) => [cue, cue.text, cue.text.replaceAll(wanted, () => instead)]);
    remember(() => {
      for (const [cue, before, after] of changes) if (cue.text === after) setText(cue, before);
      return hits[0];
    });
    const count = hits.reduce((sum, cue) => sum + occurrences(cue.text, wanted), 0);
    for (const [cue, , after] of changes) setText(cue, after);
    refresh();
    keep();
    countMatches();
    return say(`Replaced ${count} in ${hits.length} subtitles.`);
  }

  function countMatches() {
    const wanted = $("find").value;
    const count = cues.reduce((sum, cue) => sum + occurrences(cue.text, wanted), 0);
    $("matches").textContent = wanted ? `${count} found` : "";
  }

  function toggleFind(open) {
    $("find-bar").hidden = !open;
    $("find-toggle").setAttribute("aria-expanded", String(open));
    if (!open) return;
    const field = document.activeElement;
    const chosen = field?.tagName === "TEXTAREA" ? field.value.slice(field.selectionStart, field.selectionEnd) : "";
    if (chosen) $("find").value = chosen;
    $("find").select();
    countMatches();
  }

  function save(text, ending) {
    const href = URL.createObjectURL(new Blob([text], { type: "text/plain;charset=utf-8" }));
    const link = make("a", { href, download: `${data.title}.${ending}` });
    link.click();
    setTimeout(() => URL.revokeObjectURL(href), 10_000);
    keepNow();
    const bad = inTime(cues).filter((cue) => cue.end <= cue.start).length;
    const unread = [...cards.values()].reduce((sum, card) => sum + card.querySelectorAll(INVALID).length, 0);
    const but = [bad && `${bad} subtitles end before they start`, unread && `${unread} of the times typed could not be read`];
    say(bad || unread ? `Saved, but ${but.filter(Boolean).join(" and ")}.` : `Saved ${link.download}.`);
  }

  // The film, from the proof-reader's own disk

  let stopAt = Infinity;

  function openFilm(file) {
    URL.revokeObjectURL($("video").src);
    $("video").src = URL.createObjectURL(file);
    $("player").hidden = false;
    refresh();
  }

  function play(cue) {
    if ($("player").hidden) return say("Open the film first.");
    stopAt = cue.end / 1000;
    $("video").currentTime = cue.start / 1000;
    return $("video").play().catch(() => say("This browser cannot play that film."));
  }

  // Events

  const cueOf = (element) => shownBy.get(element.closest?.(".card"));
  const actions = { split, merge, remove, play, add: addAfter };

  $("cues").addEventListener("click", (event) => {
    const action = actions[event.target.dataset?.do];
    if (action) action(cueOf(event.target));
  });
  $("cues").addEventListener("change", (event) => {
    const cue = cueOf(event.target);
    if (event.target.dataset.do === "review") review(cue, event.target.checked);
    else if (event.target.matches(".times input") && parseClock(event.target.value) !== null) {
      event.target.value = clock(cue[event.target.className], ",");
    }
  });
  $("cues").addEventListener("input", (event) => {
    const cue = cueOf(event.target);
    if (event.target.tagName === "TEXTAREA") editText(cue, event.target.value);
    else if (event.target.matches(".times input")) editTime(cue, event.target, parseClock(event.target.value));
  });
  $("cues").addEventListener("focusin", (event) => {
    const cue = cueOf(event.target);
    if (!cue || cue === current) return;
    cards.get(current)?.classList.remove("current");
    cards.get(cue).classList.add("current");
    current = cue;
  });

  document.addEventListener("keydown", (event) => {
    const command = event.ctrlKey || event.metaKey;
    const time = event.target.matches?.(".times input") && { ArrowUp: 10, ArrowDown: -10 }[event.key];
    const key = event.key?.toLowerCase(); // with caps lock, too
    const run = (action) => (event.preventDefault(), action());
    if (event.isComposing) return; // an input method is still at work
    if (command && event.key === "Enter") {
      run(() => {
        if (current && !event.shiftKey) review(current, true);
        nextDoubtful();
      });
    } else if (event.altKey && event.key === "ArrowDown") run(() => step(1));
    else if (event.altKey && event.key === "ArrowUp") run(() => step(-1));
    else if (time) {
      run(() => {
        const cue = cueOf(event.target);
        const ms = Math.max(0, cue[event.target.className] + time * (event.shiftKey ? 10 : 1));
        event.target.value = clock(ms, ",");
        editTime(cue, event.target, ms);
      });
    } else if (command && key === "s") run(() => save(toSrt(cues), "srt"));
    else if (command && key === "h") run(() => toggleFind(true));
    else if (event.altKey && (key === "p" || event.code === "KeyP") && current) run(() => play(current));
    else if (event.key === "Escape" && !$("find-bar").hidden) run(() => toggleFind(false));
  });

  for (const choice of ["order", "threshold", "show"]) $(choice).addEventListener("change", arrange);
  $("next").addEventListener("click", nextDoubtful);
  $("undo").addEventListener("click", undo);
  $("add-first").addEventListener("click", () => addAfter(null));
  $("save-srt").addEventListener("click", () => save(toSrt(cues), "srt"));
  $("save-vtt").addEventListener("click", () => save(toVtt(cues), "vtt"));
  $("find-toggle").addEventListener("click", () => toggleFind($("find-bar").hidden));
  $("find").addEventListener("input", countMatches);
  $("find-bar").addEventListener("submit", (event) => {
    event.preventDefault();
    findNext();
  });
  $("replace-all").addEventListener("click", replaceAll);
  $("help-toggle").addEventListener("click", () => $("help").showModal());
  $("start-over").addEventListener("click", () => {
    $("help").close();
    const work = cues;
    remember(() => {
      cues = work;
      return cues[0];
    });
    cues = asRead();
    arrange();
    keep();
    say("Back to what was read. Undo brings your work back.");
  });
  $("film").addEventListener("change", (event) => event.target.files[0] && openFilm(event.target.files[0]));
  $("close-film").addEventListener("click", () => {
    $("video").pause();
    $("player").hidden = true;
    refresh();
  });
  $("video").addEventListener("timeupdate", () => {
    if ($("video").currentTime < stopAt) return;
    stopAt = Infinity;
    $("video").pause();
  });
  addEventListener("pagehide", keepNow);
  addEventListener("resize", () => document.querySelectorAll(".text textarea").forEach(fit));

  const work = restored();
  cues = work ?? asRead();
  arrange();
  if (work) say("Your work from before is here again. “?” holds “Start over”.");
}

startPage();
