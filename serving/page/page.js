"use strict";

const WORDS = {
  en: {
    title: "Try a voice", text: "Text", voice: "Voice", against: "Compare with", speaker: "Speaker", style: "Style",
    vocoder: "Vocoder", speed: "Speed", seed: "Seed", speak: "Speak", none: "none", token: "token", speaking: "Speaking...",
    done: "Done.", lost: "The server can't be reached.", seconds: "s", factor: "real-time factor", save: "Save the sound",
    attention: "Attention",
  },
  ru: {
    title: "Послушать голос", text: "Текст", voice: "Голос", against: "Сравнить с", speaker: "Диктор", style: "Стиль",
    vocoder: "Вокодер", speed: "Темп", seed: "Зерно", speak: "Произнести", none: "нет", token: "токен",
    speaking: "Синтез...", done: "Готово.", lost: "Сервер недоступен.", seconds: "с",
    factor: "доля реального времени", save: "Сохранить звук", attention: "Внимание",
  },
};
const language = navigator.language.startsWith("ru") ? "ru" : "en";
const say = (key) => WORDS[language][key];
const at = (id) => document.getElementById(id);
let offer = null;
let urls = [];

function element(tag, text, properties = {}) {
  return Object.assign(document.createElement(tag), { textContent: text }, properties);
}

function fill(select, options) {
  select.replaceChildren(...options.map(([value, text]) => element("option", text, { value })));
}

function chosenVoice() {
  return offer.voices.find((voice) => voice.name === at("voice").value);
}

function offerChoices() {
  const voice = chosenVoice();
  fill(at("speaker"), voice.speakers.map((name) => [name, name]));
  const tokens = [...Array(voice.style_tokens).keys()].map((k) => [String(k), `${say("token")} ${k}`]);
  fill(at("style"), [["", say("none")], ...tokens]);
  fill(at("vocoder"), voice.vocoders.map((name) => [name, name]));
  at("speaker-label").hidden = voice.speakers.length < 2;
  at("style-label").hidden = voice.style_tokens === 0;
  const others = offer.voices.filter((other) => other.name !== voice.name);
  fill(at("against"), [["", say("none")], ...others.map((other) => [other.name, other.name])]);
  at("against-label").hidden = others.length === 0;
}

function count() {
  at("count").textContent = `${[...at("text").value].length} / ${offer.longest_text}`;
}

function requestFor(name) {
  const voice = offer.voices.find((each) => each.name === name);
  const request = {
    text: at("text").value, voice: name, vocoder: at("vocoder").value, speed: Number(at("speed").value),
    seed: Number(at("seed").value), format: "json", attention: true,
  };
  if (voice.speakers.includes(at("speaker").value)) request.speaker = at("speaker").value;
  if (at("style").value !== "" && voice.style_tokens > 0) request.style_token = Number(at("style").value);
  return request;
}

async function asked(name) {
  let response;
  try {
    response = await fetch("/api/speech", {
      method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(requestFor(name)),
    });
  } catch {
    throw new Error(say("lost"));
  }
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error);
  return answer;
}

function bytesOf(base64) {
  return Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
}

function drawn(attention) {
  // symbols go up, decoder steps to the right
  const n = attention.symbols.length;
  const weights = bytesOf(attention.weights);
  const canvas = element("canvas", "", { width: attention.steps, height: n });
  const context = canvas.getContext("2d");
  const image = context.createImageData(attention.steps, n);
  for (let t = 0; t < attention.steps; t++) {
    for (let i = 0; i < n; i++) {
      const weight = weights[t * n + i];
      const pixel = 4 * ((n - 1 - i) * attention.steps + t);
      image.data.set([weight, weight * 0.8 + 8, 48 + weight * 0.2, 255], pixel);
    }
  }
  context.putImageData(image, 0, 0);
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `${say("attention")}: ${attention.symbols.join("")}`);
  return canvas;
}

function shown(name, answer) {
  const article = document.createElement("article");
  const url = URL.createObjectURL(new Blob([bytesOf(answer.wav)], { type: "audio/wav" }));
  urls.push(url);
  article.append(
    element("h2", name), element("audio", "", { controls: true, src: url }),
    element("p", `${answer.duration_s.toFixed(2)} ${say("seconds")}, ${say("factor")} ${answer.real_time_factor}`),
    element("a", say("save"), { href: url, download: `${name}.wav` }),
  );
  for (const sentence of answer.sentences) {
    const figure = document.createElement("figure");
    figure.append(drawn(sentence.attention), element("figcaption", `${sentence.text} (${sentence.verdict})`));
    article.append(figure);
  }
  at("results").append(article);
}

function status(text, isBad = false) {
  at("status").textContent = text;
  at("status").className = isBad ? "bad" : "";
}

async function speak(event) {
  event.preventDefault();
  at("speak").disabled = true;
  urls.forEach(URL.revokeObjectURL);
  urls = [];
  at("results").replaceChildren();
  status(say("speaking"));
  try {
    for (const name of [at("voice").value, at("against").value].filter(Boolean)) shown(name, await asked(name));
    status(say("done"));
  } catch (error) {
    status(error.message, true);
  } finally {
    at("speak").disabled = false;
  }
}

async function start() {
  document.documentElement.lang = language;
  document.querySelectorAll("[data-say]").forEach((each) => { each.textContent = say(each.dataset.say); });
  offer = await (await fetch("/api/voices")).json();
  fill(at("voice"), offer.voices.map((voice) => [voice.name, voice.name]));
  offerChoices();
  count();
  at("voice").addEventListener("change", offerChoices);
  at("text").addEventListener("input", count);
  at("speed").addEventListener("input", () => { at("speed-value").textContent = Number(at("speed").value).toFixed(2); });
  at("form").addEventListener("submit", speak);
  document.body.dataset.ready = "yes";
}

start().catch(() => status(say("lost"), true));
