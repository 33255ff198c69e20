"use strict";
// Labels texts that are typed, pasted or opened from a file, by POST /predict of the service that this page comes from.

const SHOWN = 500; // rows of the table; a download has all
const TOGETHER = 200; // texts per request, at most
const TRIES = 20; // of a request that the service has no room for

const $ = (id) => document.getElementById(id);
const encoder = new TextEncoder();
let model = null;
let limits = null;
let file = null; // {name, header, rows}
let results = []; // {row: [cells], text, answer}
let header = [];
let textColumn = 0;
let run = null; // the AbortController of what is in progress

// --- the service

const headers = () => {
  const token = sessionStorage.getItem("token");
  return { "Content-Type": "application/json", ...(token && { Authorization: `Bearer ${token}` }) };
};

const pause = (seconds, signal) => new Promise((resolve, reject) => {
  const timer = setTimeout(resolve, 1000 * seconds);
  signal?.addEventListener("abort", () => { clearTimeout(timer); reject(signal.reason); });
});

async function ask(path, body, signal) {
  for (let attempt = 1; ; attempt++) {
    const how = body ? { method: "POST", body: JSON.stringify(body) } : {};
    let response;
    try {
      response = await fetch(path, { ...how, headers: headers(), signal });
    } catch (error) {
      if (signal?.aborted) throw error;
      throw new Error("The service does not answer. Is it still running?");
    }
    if (response.ok) return response.json();
    if ((response.status === 429 || response.status === 503) && attempt < TRIES) {
      say("The service is busy; waiting…");
      await pause(Number(response.headers.get("Retry-After")) || 1, signal);
      continue;
    }
    if (response.status === 401) askForToken();
    const problem = await response.json().catch(() => ({}));
    throw new Error([problem.error ?? `The service answered with ${response.status}`, problem.hint].filter(Boolean).join(". "));
  }
}

function askForToken() {
  $("token-form").hidden = false;
  $("token").focus();
}

async function begin() {
  try {
    const described = await ask("models");
    [model] = described.models;
    limits = described.limits;
    $("about").textContent = `Answers ${model.labels.join(", ")}. Model ${model.name} (${model.head} on ${model.encoder}).`;
    $("token-form").hidden = true;
    say("");
  } catch (error) {
    $("about").textContent = "";
    say(error.message, true);
  }
}

function say(words, bad = false) {
  $("status").textContent = words;
  $("status").classList.toggle("bad", bad);
}

// --- files

// Rows of delimited text, as RFC 4180 has it; a lone quote inside a field is an ordinary character.
function parse(content, delimiter) {
  const rows = [];
  let row = [], field = "", quoted = false, begun = false;
  for (let at = 0; at < content.length; at++) {
    const one = content[at];
    if (quoted) {
      if (one !== '"') field += one;
      else if (content[at + 1] === '"') { field += '"'; at++; } else quoted = false;
    } else if (one === '"' && !begun) {
      quoted = begun = true;
    } else if (one === delimiter) {
      row.push(field); field = ""; begun = false;
    } else if (one === "\n" || one === "\r") {
      if (one === "\r" && content[at + 1] === "\n") at++;
      row.push(field); rows.push(row); row = []; field = ""; begun = false;
    } else {
      field += one; begun = true;
    }
  }
  if (field || row.length) { row.push(field); rows.push(row); }
  return rows.filter((cells) => cells.length > 1 || cells[0] !== "");
}

function delimiterOf(content) {
  const line = content.slice(0, content.search(/[\r\n]|$/)).replace(/"(?:[^"]|"")*"/g, "");
  const counts = [",", ";", "\t", "|"].map((one) => [line.split(one).length, one]);
  return counts.reduce((best, other) => (other[0] > best[0] ? other : best))[1];
}

function decode(bytes) {
  const [first, second] = bytes;
  if (first === 0xff && second === 0xfe) return new TextDecoder("utf-16le").decode(bytes);
  if (first === 0xfe && second === 0xff) return new TextDecoder("utf-16be").decode(bytes);
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    return new TextDecoder("windows-1252").decode(bytes);
  }
}

function likely(names, rows) {
  const known = names.findIndex((name) => /^(raw_?)?(text|tweet|review|comment|message|content|body|sentence)s?$/i.test(name.trim()));
  if (known >= 0) return known;
  const size = (at) => rows.slice(0, 100).reduce((sum, row) => sum + (row[at] ?? "").length, 0);
  return names.reduce((best, _, at) => (size(at) > size(best) ? at : best), 0);
}

async function open(given) {
  const content = decode(new Uint8Array(await given.arrayBuffer())).replace(/^\ufeff/, "");
  if (/\.(txt|lines)$/i.test(given.name)) {
    const rows = content.split(/\r\n|\r|\n/).filter((line) => line.trim()).map((line) => [line]);
    choose({ name: given.name, header: ["text"], rows });
    return;
  }
  const [names = [], ...rows] = parse(content, delimiterOf(content));
  const wide = rows.findIndex((row) => row.length > names.length);
  if (wide >= 0) {
    say(`${given.name}, row ${wide + 1}: ${rows[wide].length} fields, the header has ${names.length}. Put quotes around texts with the delimiter in them.`, true);
    return;
  }
  choose({ name: given.name, header: names, rows });
}

function choose(opened) {
  if (!opened.rows.length) {
    say(`${opened.name} has no rows below its header.`, true);
    return;
  }
  file = opened;
  $("column").replaceChildren(...file.header.map((name, at) => new Option(name || `column ${at + 1}`, at)));
  $("column").value = likely(file.header, file.rows);
  $("chosen-name").textContent = `${file.name}: ${file.rows.length.toLocaleString()} rows`;
  $("chosen").hidden = false;
  $("texts").disabled = true;
  say("");
  $("go").focus();
}

function forget() {
  file = null;
  $("file").value = "";
  $("chosen").hidden = true;
  $("texts").disabled = false;
  $("texts").focus();
}

// --- labelling

// A text that is longer than the service takes loses its end.
function fitting(text) {
  const most = limits.max_text_bytes;
  if (text.length * 3 <= most) return text;
  const bytes = encoder.encode(text);
  return bytes.length <= most ? text : new TextDecoder().decode(bytes.slice(0, most)).replace(/\ufffd+$/, "");
}

function* portions(texts) {
  let start = 0, size = 0;
  for (let at = 0; at < texts.length; at++) {
    const more = 6 * texts[at].length + 8; // as JSON, at most
    if (at > start && (at - start >= Math.min(TOGETHER, limits.max_texts) || size + more > 0.9 * limits.max_body_bytes)) {
      yield [start, texts.slice(start, at)];
      [start, size] = [at, 0];
    }
    size += more;
  }
  yield [start, texts.slice(start)];
}

async function label(event) {
  event?.preventDefault();
  if (run) return;
  if (!model) await begin();
  if (!model) return;
  const rows = file ? file.rows : $("texts").value.split("\n").filter((line) => line.trim()).map((line) => [line]);
  if (!rows.length) {
    say("Type a text, or open a file.", true);
    $("texts").focus();
    return;
  }
  header = file ? file.header : ["text"];
  textColumn = file ? Number($("column").value) : 0;
  results = rows.map((row) => ({ row, text: row[textColumn] ?? "", answer: null }));
  $("rows").replaceChildren();
  await labelAll();
}

async function labelAll() {
  run = new AbortController();
  busy(true);
  const below = $("below").valueAsNumber;
  let done = 0;
  try {
    for (const [start, texts] of portions(results.map((one) => fitting(one.text)))) {
      const asked = { texts, ...(below >= 0 && { abstain_below: Math.min(below, 100) / 100 }) };
      const { predictions, model: id } = await ask("predict", asked, run.signal);
      if (id !== model.id) { // another one was published
        await begin();
        if (start) throw new Error("The service has a new model. Label again, so that one model answers all texts.");
      }
      predictions.forEach((answer, at) => { results[start + at].answer = answer; });
      show(start, predictions.length);
      done += predictions.length;
      $("progress").value = done / results.length;
      say(`${done.toLocaleString()} of ${results.length.toLocaleString()} labelled`);
    }
    say(`${done.toLocaleString()} ${done === 1 ? "text" : "texts"} labelled`);
  } catch (error) {
    const stopped = run.signal.aborted;
    say(`${stopped ? "Stopped." : error.message} ${done ? `${done.toLocaleString()} texts are labelled.` : ""}`, !stopped);
  }
  run = null;
  busy(false);
}

function busy(on) {
  $("go").disabled = on;
  $("stop").hidden = $("progress").hidden = !on;
  $("progress").value = 0;
}

// --- results

function element(name, words, className = "") {
  const made = document.createElement(name);
  made.textContent = words;
  made.className = className;
  return made;
}

function show(start, count) {
  $("results").hidden = false;
  for (let at = start; at < Math.min(start + count, SHOWN); at++) $("rows").append(rowOf(results[at]));
  const shares = new Map();
  const answered = results.filter((one) => one.answer);
  for (const { answer } of answered) {
    const name = answer.label ?? "no text";
    shares.set(name, (shares.get(name) ?? 0) + 1);
  }
  $("shares").textContent = [...shares].sort((a, b) => b[1] - a[1])
    .map(([name, n]) => `${name}: ${n.toLocaleString()} (${(100 * n / answered.length).toFixed(0)} %)`).join(", ");
  const hidden = answered.length - SHOWN;
  $("more").textContent = hidden > 0 ? `${hidden.toLocaleString()} further rows are in the download.` : "";
}

function rowOf(result) {
  const { answer, text } = result;
  const row = document.createElement("tr");
  const certainty = document.createElement("td");
  const why = document.createElement("td");
  row.append(element("td", text), element("td", answer.label ?? "–", "label"), certainty, why);
  if (answer.score === null) return row;
  const meter = document.createElement("meter");
  meter.value = answer.score;
  meter.setAttribute("aria-hidden", "true");
  certainty.append(meter, ` ${(100 * answer.score).toFixed(1)} %`);
  certainty.title = Object.entries(answer.probabilities).map(([name, p]) => `${name} ${(100 * p).toFixed(1)} %`).join(", ");
  if (answer.truncated) certainty.append(element("div", "end not read", "soft"));
  if (model.explains) why.append(whyButton(result, row));
  else why.textContent = "–";
  return row;
}

function whyButton(result, row) {
  const button = element("button", "Why?");
  button.type = "button";
  button.setAttribute("aria-expanded", "false");
  if (encoder.encode(result.text).length > limits.max_explained_bytes) {
    button.disabled = true;
    button.title = `Texts of up to ${limits.max_explained_bytes} bytes can be explained.`;
  }
  button.addEventListener("click", async () => {
    const below = row.nextElementSibling;
    if (below?.classList.contains("why")) {
      below.remove();
      button.setAttribute("aria-expanded", "false");
      return;
    }
    button.disabled = true;
    try {
      const { predictions } = await ask("predict", { texts: result.text, explain: true });
      row.after(explained(predictions[0].explanation));
      button.setAttribute("aria-expanded", "true");
    } catch (error) {
      say(error.message, true);
    }
    button.disabled = false;
    button.focus();
  });
  return button;
}

function explained(why) {
  const row = element("tr", "", "why");
  const cell = document.createElement("td");
  cell.colSpan = 4;
  row.append(cell);
  const letters = Array.from(why.text); // places are those of characters
  const most = Math.max(...why.words.map((word) => Math.abs(word.weight)), 1e-9);
  const said = element("p", "", "said");
  let end = 0;
  for (const word of why.words) {
    const mark = element("mark", letters.slice(word.start, word.end).join(""), word.weight < 0 ? "against" : "for");
    mark.style.setProperty("--share", (0.65 * Math.abs(word.weight) / most).toFixed(2));
    mark.title = signed(word.weight);
    said.append(letters.slice(end, word.start).join(""), mark);
    end = word.end;
  }
  said.append(letters.slice(end).join(""));
  const list = document.createElement("dl");
  for (const word of [...why.words].sort((a, b) => Math.abs(b.weight) - Math.abs(a.weight)).slice(0, 5)) {
    list.append(element("dt", word.word), element("dd", `${signed(word.weight)} ${word.weight < 0 ? "against" : "for"} ${why.label}`));
  }
  cell.append(element("span", `What speaks for ${why.label}, and (underlined) against it:`, "soft"), said, list);
  if (why.unread) cell.append(element("p", `${why.unread.toLocaleString()} further characters were not read.`, "soft"));
  return row;
}

const signed = (value) => `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(2)}`;

// --- download

function csv() {
  const names = ["prediction", "score", ...model.labels.map((one) => `p_${one}`)];
  const taken = new Set(header.map((name) => name.toLowerCase()));
  const prefix = names.some((name) => taken.has(name.toLowerCase())) ? "senthy_" : "";
  const safe = $("safe").checked;
  const quote = (value) => {
    let words = String(value ?? "");
    if (safe && typeof value === "string" && /^[=+\-@\t\r]/.test(words)) words = `'${words}`;
    return /[",\r\n]/.test(words) ? `"${words.replaceAll('"', '""')}"` : words;
  };
  const lines = [[...header, ...names.map((name) => prefix + name)]];
  for (const { row, answer } of results) {
    const cells = header.map((_, at) => row[at] ?? "");
    lines.push([...cells, answer?.label, answer?.score, ...model.labels.map((one) => answer?.probabilities[one])]);
  }
  return lines.map((cells) => `${cells.map(quote).join(",")}\r\n`).join("");
}

function download() {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob(["\ufeff", csv()], { type: "text/csv" }));
  link.download = file ? `${file.name.replace(/\.[^.]*$/, "")}-labelled.csv` : "labelled.csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

// --- what people do

$("form").addEventListener("submit", label);
$("stop").addEventListener("click", () => run?.abort());
$("forget").addEventListener("click", forget);
$("download").addEventListener("click", download);
$("file").addEventListener("change", (event) => event.target.files[0] && open(event.target.files[0]));
$("texts").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) label(event);
});
$("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("token", $("token").value.trim());
  begin();
});
for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    $("drop").classList.toggle("over", kind === "dragover");
    if (kind === "drop" && event.dataTransfer.files[0]) open(event.dataTransfer.files[0]);
  });
}
begin();
