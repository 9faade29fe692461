"use strict";
const trial = JSON.parse(document.getElementById("trial").textContent);
const at = id => document.getElementById(id);
const filled = (text, values) => text.replace(/\{(\w+)\}/g, (all, name) => name in values ? values[name] : all);

function shuffled(items) {  // Fisher and Yates
  const list = [...items];
  for (let i = list.length - 1; i > 0; i--) {
    const j = Math.floor(Math.random() * (i + 1));
    [list[i], list[j]] = [list[j], list[i]];
  }
  return list;
}

// each pair in an order of its own: who is first is drawn, too
const pairs = shuffled(trial.asked).map(asked => ({ text: asked.text, order: shuffled(asked.pair), vote: null }));
let current = 0;

function show() {
  const isOver = current >= pairs.length;
  at("ask").hidden = isOver;
  at("result").hidden = !isOver;
  if (isOver) { showCounts(); return; }
  const pair = pairs[current], text = trial.texts[pair.text];
  at("place").textContent = filled(trial.words.place, { n: current + 1, total: pairs.length });
  at("text").textContent = text.text;
  at("first").src = text.sounds[pair.order[0]];
  at("second").src = text.sounds[pair.order[1]];
  at("back").disabled = current === 0;
}

function votes() {
  return pairs.filter(pair => pair.vote !== null).map(pair => ({
    text: trial.texts[pair.text].name,
    first: trial.sources[pair.order[0]],
    second: trial.sources[pair.order[1]],
    better: pair.vote === "same" ? null : trial.sources[pair.order[pair.vote === "first" ? 0 : 1]],
  }));
}

function counts() {
  return trial.sources.map(name => {
    const own = votes().filter(vote => vote.first === name || vote.second === name);
    const wins = own.filter(vote => vote.better === name).length;
    const draws = own.filter(vote => vote.better === null).length;
    return { name, wins, losses: own.length - wins - draws, draws };
  });
}

function showCounts() {
  at("counts").replaceChildren(...counts().map(count => {
    const line = document.createElement("p");
    line.textContent = filled(trial.words.won, count);
    return line;
  }));
}

function save() {
  const content = { evaluation: trial.evaluation, step: trial.step, time: new Date().toISOString(), votes: votes(), counts: counts() };
  const link = document.createElement("a");
  link.href = "data:application/json;charset=utf-8," + encodeURIComponent(JSON.stringify(content, null, 1));
  link.download = "votes.json";
  link.click();
}

for (const button of document.querySelectorAll("button[data-vote]"))
  button.addEventListener("click", () => { pairs[current].vote = button.dataset.vote; current++; show(); });
at("back").addEventListener("click", () => { current--; show(); });
at("stop").addEventListener("click", () => { current = pairs.length; show(); });
at("save").addEventListener("click", save);
show();
