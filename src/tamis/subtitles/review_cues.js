"use strict";
// What the proof-reading page does to cues, without a page: tested with node.
//
// A cue here: {start, end (milliseconds), text, reviewed, from: [indices of the cues as read], read, sure, confidence}
// `read` is the text as it was read and `sure` the confidence of its code points in percent.

const pad = (number, width) => String(number).padStart(width, "0");

function clock(ms, point) {
  const s = Math.floor(ms / 1000);
  return `${pad(Math.floor(s / 3600), 2)}:${pad(Math.floor(s / 60) % 60, 2)}:${pad(s % 60, 2)}${point}${pad(ms % 1000, 3)}`;
}

// Milliseconds of "1:02:03,4", "02:03.45" or "3"; null when it is no time.
function parseClock(text) {
  const found = /^\s*(?:(?:(\d{1,6}):)?(\d{1,2}):)?(\d{1,6})(?:[.,](\d{1,3}))?\s*$/.exec(text);
  if (!found) return null;
  const [, hours = "0", minutes = "0", seconds, decimals = ""] = found;
  if ((found[2] && Number(seconds) > 59) || (found[1] && Number(minutes) > 59)) return null;
  return (Number(hours) * 3600 + Number(minutes) * 60 + Number(seconds)) * 1000 + Number(decimals.padEnd(3, "0"));
}

const inTime = (cues) => [...cues].sort((a, b) => a.start - b.start || a.end - b.end);
const fullLines = (text) => text.split(/\r\n|\r|\n/).filter((line) => line.trim());
const written = (cues) => inTime(cues).filter((cue) => fullLines(cue.text).length);

// As in formats.py: players drop what looks like markup, unless a word joiner, which is not visible, breaks it up.
const likeMarkup = /<(?=\u2060*\/?(?:i|b|u|s|font|ruby|rt)(?![\p{L}\p{N}_])[^<>\n]*>)|\{(?=\u2060*\\[^{}\n]*\})/giu;

function toSrt(cues) {
  const safe = (text) => fullLines(text).join("\n").replace(/-{2,}>/g, "->").replace(likeMarkup, "$&\u2060");
  return written(cues)
    .map((cue, i) => `${i + 1}\n${clock(cue.start, ",")} --> ${clock(cue.end, ",")}\n${safe(cue.text)}\n`)
    .join("\n");
}

function toVtt(cues) {
  const safe = (text) =>
    fullLines(text).join("\n").replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
  const blocks = written(cues).map(
    (cue) => `${clock(cue.start, ".")} --> ${clock(cue.end, ".")}${cue.top ? " line:0" : ""}\n${safe(cue.text)}\n`,
  );
  return ["WEBVTT\n", ...blocks].join("\n");
}

// Confidence of each code point of `text`: of what was read where it still stands, null where a person wrote.
function confidences(read, sure, text) {
  const old = Array.from(read);
  const now = Array.from(text);
  const most = Math.min(old.length, now.length);
  let head = 0;
  while (head < most && old[head] === now[head]) head++;
  let tail = 0;
  while (tail < most - head && old[old.length - 1 - tail] === now[now.length - 1 - tail]) tail++;
  return now.map((_, i) => {
    if (i < head) return sure[i];
    return i >= now.length - tail ? sure[old.length - now.length + i] : null;
  });
}

// Two cues in place of one, cut before UTF-16 unit `at`; time is shared out by length. Null when one would be empty.
function splitCue(cue, at) {
  const [first, second] = [cue.text.slice(0, at).trim(), cue.text.slice(at).trim()];
  if (!first || !second || cue.end - cue.start < 2) return null;
  const share = Array.from(first).length / (Array.from(first).length + Array.from(second).length);
  const middle = cue.start + Math.min(Math.max(Math.round((cue.end - cue.start) * share), 1), cue.end - cue.start - 1);
  return [
    { ...cue, text: first, end: middle, reviewed: false },
    { ...cue, text: second, start: middle, reviewed: false },
  ];
}

// One cue in place of two; one that was only read twice does not double its text.
function mergeCues(a, b) {
  const same = a.text.trim() === b.text.trim();
  const from = [...new Set([...a.from, ...b.from])];
  const kept = same || from.length === a.from.length ? { read: a.read, sure: a.sure } : joinRead(a, b);
  return {
    ...a,
    ...kept,
    from,
    text: same ? a.text : `${a.text}\n${b.text}`,
    end: Math.max(a.end, b.end),
    confidence: Math.min(a.confidence, b.confidence),
    reviewed: false,
  };
}

const joinRead = (a, b) => ({ read: `${a.read}\n${b.read}`, sure: [...a.sure, 100, ...b.sure] });

const cueAsRead = (cue, i) => ({
  start: cue.start, end: cue.end, text: cue.text, reviewed: false, from: [i],
  read: cue.text, sure: cue.sure, confidence: cue.confidence, top: cue.top,
});

// The cues that a browser has kept, over those as read. Throws or returns null when they are not such a record.
function restoreCues(kept, known) {
  const saved = JSON.parse(kept);
  if (saved?.version !== 1) return null;
  const none = { read: "", sure: [], confidence: 100, top: false };
  const joined = (a, b) => ({ ...a, ...joinRead(a, b), confidence: Math.min(a.confidence, b.confidence) });
  return saved.cues.map((cue) => {
    if (!Number.isFinite(cue.start + cue.end) || typeof cue.text !== "string") throw TypeError("no cue");
    const [first = none, ...others] = cue.from.map((i) => known[i]).filter(Boolean);
    return { ...others.reduce(joined, first), ...cue };
  });
}

// What is wrong with the times of a cue, in words; empty when nothing is.
function timeTrouble(cue, following) {
  if (cue.end <= cue.start) return "ends before it starts";
  return following && following.start < cue.end ? "overlaps the next" : "";
}

// [[heading, cues]] in the order to show them.
function arranged(cues, order, threshold, show) {
  const doubtful = (cue) => cue.confidence < threshold;
  const open = inTime(cues).filter(
    (cue) => show === "all" || (show === "open" ? !cue.reviewed : doubtful(cue)),
  );
  if (order === "time") return [["", open]];
  const first = open.filter(doubtful).sort((a, b) => a.confidence - b.confidence);
  const rest = open.filter((cue) => !doubtful(cue));
  return [["Doubtful, most doubtful first", first], ["The others, by time", rest]].filter(([, some]) => some.length);
}

const occurrences = (text, wanted) => (wanted ? text.split(wanted).length - 1 : 0);

if (typeof module !== "undefined") {
  module.exports = { clock, parseClock, toSrt, toVtt, confidences, splitCue, mergeCues, restoreCues, timeTrouble, arranged };
}
