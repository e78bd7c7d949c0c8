"use strict";
(() => {
  const root = document.documentElement;
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const plots = [...document.querySelectorAll("[data-plot]")];
  const dark = window.matchMedia("(prefers-color-scheme: dark)");

  // Figures name colours as var(--name); they are looked up whenever the colours of the page change.
  const resolve = (value, style) => {
    if (typeof value === "string") {
      const name = /^var\((--[a-z0-9-]+)\)$/.exec(value);
      return name ? style.getPropertyValue(name[1]).trim() : value;
    }
    if (Array.isArray(value)) return value.map((item) => resolve(item, style));
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, resolve(item, style)]));
    }
    return value;
  };

  const draw = (element) => {
    const figure = resolve(figures[element.dataset.plot], getComputedStyle(root));
    const config = { displayModeBar: false, responsive: true, scrollZoom: false, doubleClick: false };
    return window.Plotly.react(element, figure.data, figure.layout, config);
  };
  const drawAll = () => (window.Plotly ? Promise.all(plots.map(draw)) : Promise.resolve());

  const button = document.getElementById("theme");
  const themes = ["system", "light", "dark"];
  let theme = 0;
  const showTheme = (name) => {
    if (name === "system") delete root.dataset.theme;
    else root.dataset.theme = name;
    drawAll();
  };
  button.addEventListener("click", () => {
    theme = (theme + 1) % themes.length;
    document.getElementById("theme-name").textContent = themes[theme];
    button.setAttribute("aria-label", `Colours: ${themes[theme] === "system" ? "as the system says" : themes[theme]}`);
    showTheme(themes[theme]);
  });
  dark.addEventListener("change", drawAll);

  let opened = [];
  window.addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details:not([open])")];
    opened.forEach((item) => { item.open = true; });
    showTheme("light");
  });
  window.addEventListener("afterprint", () => {
    opened.forEach((item) => { item.open = false; });
    showTheme(themes[theme]);
  });

  const links = [...document.querySelectorAll("nav a")];
  const targets = links.map((link) => document.querySelector(link.getAttribute("href")));
  const strip = document.querySelector("nav ul");
  const mark = () => {
    const line = window.innerHeight * 0.3;
    let current = 0;
    targets.forEach((target, index) => { if (target.getBoundingClientRect().top <= line) current = index; });
    if (window.innerHeight + window.scrollY >= root.scrollHeight - 4) current = targets.length - 1;
    links.forEach((link, index) => {
      if (index === current && link.getAttribute("aria-current") !== "true") {
        link.setAttribute("aria-current", "true");
        strip.scrollTo({ left: link.offsetLeft - strip.offsetLeft - 60 });
      } else if (index !== current) link.removeAttribute("aria-current");
    });
  };
  let waiting = false;
  window.addEventListener("scroll", () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; mark(); });
  }, { passive: true });

  document.querySelectorAll("[data-filter]").forEach((item) => item.addEventListener("click", () => {
    document.querySelectorAll("[data-filter]").forEach((other) => other.setAttribute("aria-pressed", String(other === item)));
    document.querySelector(".samples").classList.toggle("only-mistakes", item.dataset.filter === "mistakes");
  }));

  const copy = document.getElementById("copy");
  if (copy) copy.addEventListener("click", async () => {
    const text = document.getElementById("command").textContent;
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const range = document.createRange();
      range.selectNodeContents(document.getElementById("command"));
      getSelection().removeAllRanges();
      getSelection().addRange(range);
      document.execCommand("copy");
    }
    copy.textContent = "Copied";
    setTimeout(() => { copy.textContent = "Copy"; }, 1600);
  });

  mark();
  drawAll().then(() => { root.dataset.ready = "true"; });
})();
