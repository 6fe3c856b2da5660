// Names and other words of people and devices, kept apart from the words around them.

import { el } from "./dom.js";

/** Characters that cannot be seen or that turn what stands beside them; line breaks and tabs stay. */
const HIDDEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u115f\u1160\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0]/g;

const RIGHT_TO_LEFT = /[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefe\u{10800}-\u{10fff}\u{1e800}-\u{1efff}]/u;

/** The text with such characters written out, as in `\u202e`. */
export const visible = (text) =>
  String(text).replace(HIDDEN, (found) => `\\u${found.charCodeAt(0).toString(16).padStart(4, "0")}`);

/** An element in which this text has a direction that changes nothing around it. */
export const named = (text) => el("bdi", {}, visible(text));

/** The same where no element can stand: a title, an attribute. Only text from right to left needs the two marks. */
export const isolated = (text) => (RIGHT_TO_LEFT.test(text) ? `\u2068${visible(text)}\u2069` : visible(text));
