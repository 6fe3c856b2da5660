// A file for the person who looks, made of what the page has: nothing leaves the browser for it.

const KEPT_MS = 60_000;

/** Hand over a file with this name. */
export function download(name, type, ...content) {
  const url = URL.createObjectURL(new Blob(content, { type }));
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), KEPT_MS);
}
