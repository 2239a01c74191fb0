"use strict";
(() => {
  const root = document.documentElement;
  const theme = document.querySelector(".theme");
  const darkNow = () =>
    (root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  if (theme) {
    theme.hidden = false;
    theme.addEventListener("click", () => { root.dataset.theme = darkNow() ? "light" : "dark"; });
  }
  const block = document.getElementById("map-data");
  const maps = [...document.querySelectorAll("svg.map")];
  const tip = document.getElementById("tip");
  if (!block || !maps.length || !tip) return;
  const data = JSON.parse(block.textContent);
  const chosen = { language: null, document: null };
  let shown = -1;

  const panels = maps.map((svg) => {
    const marks = new Map();
    for (const mark of svg.querySelectorAll(".points [data-i]")) {
      const i = Number(mark.dataset.i);
      const box = mark.matches("use") ? mark : mark.querySelector("rect") || mark;
      const middle = mark.matches("use") ? 0 : Number(box.getAttribute("width")) / 2;
      marks.set(i, { mark, x: Number(box.getAttribute("x")) + middle, y: Number(box.getAttribute("y")) + middle });
    }
    const overlay = document.createElementNS("http://www.w3.org/2000/svg", "g");
    svg.append(overlay);
    return { svg, marks, overlay };
  });

  const visible = (i) => {
    const point = data.points[i];
    if (chosen.language !== null && point.r && point.l !== chosen.language) return false;
    return chosen.document === null || point.d === chosen.document;
  };
  const element = (name, attributes) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  };
  const line = (class_, text) => {
    const made = document.createElement("span");
    made.className = class_;
    made.textContent = text;
    return made;
  };
  const name = (code) => (data.languages[code] ? `${data.languages[code]} (${code})` : code);

  function describe(i) {
    const point = data.points[i];
    const text = line("text", point.t);
    text.lang = point.l;
    text.dir = "auto";
    const lines = [text];
    if (point.r) {
      const meant = data.points.find((other) => other.p === point.p && other.l === data.own);
      if (meant && meant !== point) lines.push(line("meant", meant.t));
      const ranks = data.encoders.map((encoder, n) => `${encoder} ${point.r[n]}`).join(", ");
      lines.push(line("quiet", `question in ${name(point.l)} about “${data.titles[point.d]}”`));
      lines.push(line("quiet", `rank of its gold ${data.pool}: ${ranks}`));
    } else {
      lines.push(line("quiet", `${data.pool}: “${data.titles[point.d]}”`));
    }
    tip.replaceChildren(...lines);
  }

  function near(i, other) {
    const a = data.points[i], b = data.points[other];
    return a.d === b.d && visible(other);
  }

  function show(i, panel, at) {
    if (i !== shown) {
      shown = i;
      for (const { svg, marks, overlay } of panels) {
        overlay.replaceChildren();
        svg.classList.toggle("dimmed", i >= 0);
        if (i < 0) continue;
        for (const [other, { mark }] of marks) mark.classList.toggle("near", near(i, other));
        const here = marks.get(i);
        if (!here) continue;
        if (data.points[i].r) {
          for (const [other, place] of marks) {
            if (!data.points[other].r && data.points[other].d === data.points[i].d) {
              overlay.append(element("line", { class: "link", x1: here.x, y1: here.y, x2: place.x, y2: place.y }));
            }
          }
        }
        overlay.append(element("circle", { class: "ring", cx: here.x, cy: here.y, r: data.points[i].r ? 9 : 13 }));
      }
      if (i >= 0) describe(i);
    }
    tip.hidden = i < 0;
    if (i < 0) return;
    const box = tip.getBoundingClientRect();
    const left = Math.min(at.x + 16, innerWidth - box.width - 8);
    const top = at.y + 18 + box.height > innerHeight ? at.y - box.height - 14 : at.y + 18;
    tip.style.left = `${Math.max(8, left)}px`;
    tip.style.top = `${Math.max(8, top)}px`;
  }
  const place = (panel, i) => {
    const { x, y } = panel.marks.get(i);
    const matrix = panel.svg.getScreenCTM();
    return { x: x * matrix.a + matrix.e, y: y * matrix.d + matrix.f };
  };

  for (const panel of panels) {
    const nearest = (event) => {
      const matrix = panel.svg.getScreenCTM().inverse();
      const x = event.clientX * matrix.a + matrix.e, y = event.clientY * matrix.d + matrix.f;
      let best = -1, distance = 14 * 14;
      for (const [i, mark] of panel.marks) {
        const d = (mark.x - x) ** 2 + (mark.y - y) ** 2;
        if (d < distance && visible(i)) { best = i; distance = d; }
      }
      return best;
    };
    panel.svg.tabIndex = 0;
    const follow = (event) => show(nearest(event), panel, { x: event.clientX, y: event.clientY });
    panel.svg.addEventListener("pointermove", follow);
    panel.svg.addEventListener("pointerdown", follow);
    panel.svg.addEventListener("pointerleave", () => show(-1));
    panel.svg.addEventListener("blur", () => show(-1));
    panel.svg.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (event.key === "Escape") show(-1);
      if (!step) return;
      event.preventDefault();
      const order = [...panel.marks.keys()].filter(visible)
        .sort((a, b) => data.points[a].d - data.points[b].d || a - b);
      if (!order.length) return;
      const next = order[(order.indexOf(shown) + step + order.length) % order.length];
      show(next, panel, place(panel, next));
    });
  }

  for (const button of document.querySelectorAll("button[data-language], button[data-document]")) {
    button.disabled = false;
    button.addEventListener("click", () => {
      const kind = button.dataset.language === undefined ? "document" : "language";
      const value = kind === "language" ? button.dataset.language : Number(button.dataset.document);
      chosen[kind] = chosen[kind] === value ? null : value;
      for (const other of document.querySelectorAll(`button[data-${kind}]`)) {
        const own = kind === "language" ? other.dataset.language : Number(other.dataset.document);
        other.setAttribute("aria-pressed", String(own === chosen[kind]));
      }
      for (const { marks } of panels) {
        for (const [i, { mark }] of marks) mark.toggleAttribute("hidden", !visible(i));
      }
    });
  }
})();
