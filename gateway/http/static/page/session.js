// What this tab remembers until it is closed: the key and the theme, under the names that the page to try the API uses.

const KEY = "apiKey";
const THEME = "theme";
const THEMES = ["system", "light", "dark"];

export const key = {
  get: () => sessionStorage.getItem(KEY) || null,
  keep: (value) => sessionStorage.setItem(KEY, value),
  forget: () => sessionStorage.removeItem(KEY),
};

/** Light, dark, or as the system has it; `button` goes through them. */
export function setUpTheme(button) {
  const show = (theme) => {
    if (theme === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    button.textContent = `Theme: ${theme}`;
  };
  let theme = sessionStorage.getItem(THEME) ?? "system";
  show(theme);
  button.addEventListener("click", () => {
    theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
    sessionStorage.setItem(THEME, theme);
    show(theme);
  });
}
