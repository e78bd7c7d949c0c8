"use strict";
// What both pages need: elements without markup strings, the token, and calls of the API.

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name in element && name !== "list") element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

const find = (selector) => document.querySelector(selector);

class ApiError extends Error {
  constructor(status, body) {
    super(body.error || `The server answered with status ${status}.`);
    this.status = status;
    this.problems = body.problems || [];
  }
}

async function call(path, options = {}) {
  const headers = new Headers(options.headers || {});
  const token = sessionStorage.getItem("graftwork-token");
  if (token) headers.set("Authorization", `Bearer ${token}`);
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, { error: "The server does not answer. Is it still running?" });
  }
  const body = await response.json().catch(() => ({}));
  if (!response.ok) throw new ApiError(response.status, body);
  return body;
}

function showError(error) {
  const box = find("#error");
  box.hidden = !error;
  if (!error) return;
  const items = (error.problems || []).map((problem) => {
    const field = problem.field ? make("code", {}, problem.field) : null;
    const given = problem.value === null || problem.value === undefined ? "" : ` is ${JSON.stringify(problem.value)};`;
    return make("li", {}, field, `${given} allowed: ${problem.allowed}`);
  });
  box.replaceChildren(make("p", {}, error.message), items.length ? make("ul", {}, ...items) : "");
}

// Runs `start` now, or once the user gave a token that the server takes.
async function withToken(start) {
  const form = find("#token-form");
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    sessionStorage.setItem("graftwork-token", find("#token").value);
    attempt();
  });
  async function attempt() {
    try {
      await start();
      form.hidden = true;
    } catch (error) {
      if (error.status === 401) {
        form.hidden = false;
        find("#name").textContent = "Locked";
        find("#token").focus();
      } else {
        find("#name").textContent = "The model cannot be shown";
        find("#summary").textContent = error.message;
      }
    }
    document.documentElement.dataset.ready = "true";
  }
  await attempt();
}
