// Asks whether to reset what is selected, as a job: first what would happen, then how, then the count once more.

import { ApiError, onceKey } from "./api.js";
import { ask } from "./dialog.js";
import { el } from "./dom.js";
import { number } from "./format.js";
import { JobForm } from "./job_form.js";
import { JobPlan } from "./job_plan.js";
import { devices } from "./job_words.js";

/** The name in a dry run, which makes no job. */
const DRY = "Dry run";

/** Resolves to the job, or to false. */
export function askResetJob(api, selection, readiness) {
  const targets = targetsOf(selection);
  const form = new JobForm();
  const typed = el("input", { id: "jobCount", inputmode: "numeric", autocomplete: "off", required: true });
  const [title, label] = [el("span", {}, devices(selection.size)), el("strong", {})];
  const plan = new JobPlan(
    () => api.post("jobs", { name: DRY, action: "factory_reset", targets, dry_run: true }),
    () => readiness.hasBroker,
    ({ total, counts }) => {
      title.textContent = devices(total);
      label.textContent = number(total);
      form.expect(counts.would_queue ?? 0);
    });
  const once = onceKey();
  plan.load();
  return ask({
    title: ["Reset ", title, " as a job?"],
    fields: [plan.node, form.node],
    last: el("div", { class: "typed" }, el("label", { for: typed.id }, "To go on, type the number of devices: ", label), typed),
    action: "Create the job",
    run: () => create(api, { ...form.body(), targets }, plan, typed, once),
  });
}

async function create(api, body, plan, typed, once) {
  const { total } = plan;
  if (total == null) {
    plan.load();
    throw refused("The gateway has not said yet what would happen. Wait for it.");
  }
  if (typed.value.replace(/[\s,.’']/g, "") !== String(total)) {
    throw refused(`That is not the number of devices. Type ${number(total)} if you mean all of them. Nothing was done.`);
  }
  try {
    return await api.post("jobs", { ...body, confirm_count: total }, once);
  } catch (error) {
    if (error.code !== "confirmation_needed") throw error;
    typed.value = "";
    await plan.load();
    throw refused(`The number of devices has changed: it was ${number(total)}, and is ${number(plan.total ?? 0)} now. `
      + "Read again what will happen, and type the new number. Nothing was done.");
  }
}

const refused = (message) => new ApiError(400, "refused", message);

/** The API's targets. An address has text alone; `seen` is a boolean. */
function targetsOf({ filter, ids }) {
  if (filter == null) return { device_ids: ids };
  return { filter: { ...filter, ...(filter.seen != null && { seen: filter.seen === "true" }) } };
}
