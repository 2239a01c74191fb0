// Runs before anything is drawn, so that the page does not flash in the other colours.
"use strict";

(() => {
  const KEY = "clrelkt-theme";
  const THEMES = ["auto", "light", "dark"];
  const NAMES = { auto: "Auto", light: "Light", dark: "Dark" };
  const TOLD = { auto: "as the system", light: "light", dark: "dark" };

  const read = () => {
    try {
      const stored = localStorage.getItem(KEY);
      return THEMES.includes(stored) ? stored : "auto";
    } catch {
      return "auto"; // Storage may be switched off.
    }
  };

  let theme = read();
  const apply = () => {
    document.documentElement.dataset.theme = theme;
  };
  apply();

  document.addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    const name = document.getElementById("theme-name");
    const show = () => {
      name.textContent = NAMES[theme];
      button.setAttribute("aria-label", `Colours: ${TOLD[theme]}`);
    };
    show();
    button.addEventListener("click", () => {
      theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
      apply();
      show();
      try {
        localStorage.setItem(KEY, theme);
      } catch {
        // Then it lasts until the page is left.
      }
    });
  });
})();
